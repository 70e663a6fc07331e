/** How long pages of a large cluster take, and how smoothly they scroll. */

import { run } from "./run.mjs";

await run("bench");
