/** Every page at two widths, into docs/dashboard. */

import { run } from "./run.mjs";

await run("screenshots");
