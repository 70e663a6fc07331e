/** From nothing to the living graph, with the time of each step. */

import { run } from "./run.mjs";

await run("record");
