// The shell of the studio: token, theme, list of views, keys. A view is a module of views/ with
//   title: its name in the list;  key: the key that opens it
//   show(root, context): fills `root`; context = {run, parameters, signal}, where `signal` aborts
//   as soon as another view is opened (stop timers and streams by it).
// The address #/NAME/a/b opens the view NAME with the parameters ["a", "b"].

import {get, takeToken} from "./api.js";
import {el, replace} from "./dom.js";
import * as chat from "./views/chat.js";
import * as compare from "./views/compare.js";
import * as dialogues from "./views/dialogues.js";
import * as forwardPass from "./views/forward_pass.js";
import * as inside from "./views/inside.js";
import * as lineage from "./views/lineage.js";
import * as nextToken from "./views/next_token.js";
import * as runs from "./views/runs.js";
import * as tokens from "./views/tokens.js";
import * as trace from "./views/trace.js";
import * as vote from "./views/vote.js";

const VIEWS = {
  runs,
  chat,
  tokens,
  next_token: nextToken,
  inside,
  forward_pass: forwardPass,
  compare,
  vote,
  trace,
  lineage,
  dialogues,
};
const main = document.getElementById("main");
let leaving = new AbortController();

async function start() {
  takeToken();
  setTheme(localStorage.getItem("llmstages-theme"));
  document.getElementById("theme").addEventListener("click", toggleTheme);
  addEventListener("hashchange", open);
  addEventListener("keydown", openByKey);
  await open();
}

async function open() {
  if (location.hash.includes("token=")) {
    takeToken();
    location.reload();
    return;
  }
  const [name, ...parameters] = location.hash
    .replace(/^#\/?/, "")
    .split("/")
    .map(decodeURIComponent);
  const view = VIEWS[name] ?? runs;
  leaving.abort();
  leaving = new AbortController();
  const signal = leaving.signal;
  listViews(view);
  document.title = `${view.title} · llmstages studio`;
  replace(main, el("h1", view.title));
  try {
    const run = await get("/api/run", signal);
    document.getElementById("where").textContent = run.where;
    await view.show(main, {run, parameters, signal});
  } catch (error) {
    if (error.name !== "AbortError") showError(error);
  }
}

function listViews(current) {
  const links = Object.entries(VIEWS).map(([name, view]) =>
    el(
      "a",
      {
        href: `#/${name}`,
        "aria-current": view === current ? "page" : null,
        title: `key ${view.key}`,
      },
      view.title,
    ),
  );
  replace(document.getElementById("views"), links);
  document.querySelector("#views [aria-current]").scrollIntoView({block: "nearest"});
}

function openByKey(event) {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const found = Object.entries(VIEWS).find(([, view]) => view.key === event.key);
  if (found) location.hash = `#/${found[0]}`;
}

export function showError(error) {
  main.append(el("p.error", {role: "alert"}, error.message));
}

function setTheme(theme) {
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.getElementById("theme").setAttribute("aria-pressed", String(dark));
}

function toggleTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("llmstages-theme", theme);
  setTheme(theme);
}

start();
