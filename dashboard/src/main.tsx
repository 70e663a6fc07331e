/** Begins the page: who is here, where the user is, and what the keys do. */

import "./style.css";

import { render } from "preact";

import { onUnauthorized } from "./kube/http";
import { again, begin, lost } from "./kube/session";
import { App } from "./ui/app";
import { startKeys } from "./ui/keys";
import { startClock } from "./ui/now";
import { start } from "./ui/route";
import { startTheme } from "./ui/theme";

startTheme();
start();
startKeys();
startClock();
onUnauthorized(() => {
  lost("your session is over; sign in again to go on here");
  void again();
});
void begin();
const root = document.getElementById("app");
if (root !== null) render(<App />, root);
