// Where the page begins: views, navigation, appearance.

import * as appearance from "./appearance.js";
import * as chat from "./chat.js";
import * as conversations from "./conversations.js";
import * as device from "./device.js";
import * as keys from "./keys.js";
import * as models from "./models.js";
import * as router from "./router.js";
import * as updates from "./updates.js";
import * as usage from "./usage.js";

const $ = (id) => document.getElementById(id);

appearance.start($("theme"));

$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which view is shown, and must go on saying so
  document.querySelector("main > section:not([hidden]) h1")?.focus();
});

$("open-settings").addEventListener("click", () => ($("forget-keys").hidden = !keys.any()));
$("forget-keys").addEventListener("click", () => {
  keys.forget();
  $("forget-keys").hidden = true;
});

await conversations.open(chat.changed);
chat.start();
router.start({ chat, models, device, updates, usage });
