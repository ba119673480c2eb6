// What a step was made from: a graph, and for each artifact its config, record, files and rows.

import {get} from "../api.js";
import {el, labeled, replace, select, svg} from "../dom.js";
import {scrolling, short, table} from "../parts.js";

export const title = "Lineage";
export const key = "l";

const WIDTH = 150;
const HEIGHT = 46;
const GAP = 26;

export async function show(root, {run, parameters, signal}) {
  const names = run.steps.filter((step) => step.state === "done").map((step) => step.name);
  if (!names.length) {
    root.append(el("p", "Nothing is finished yet."));
    return;
  }
  const step = names.includes(parameters[0]) ? parameters[0] : names.at(-1);
  const choose = (name) => {
    location.hash = `#/lineage/${encodeURIComponent(name)}`;
  };
  const graph = await get(`/api/lineage/${encodeURIComponent(step)}`, signal);
  const panel = el("section.panel", {"aria-live": "polite", "aria-label": "Artifact"});
  const open = async (key) => {
    replace(
      panel,
      details(
        await get(`/api/artifact/${encodeURIComponent(step)}/${encodeURIComponent(key)}`, signal),
      ),
    );
  };
  root.append(
    labeled("Step", select(names, step, choose)),
    scrolling("Graph", draw(graph, open)),
    panel,
  );
  await open(graph.root);
}

// One column for each depth, left to right.
function draw({nodes, edges, root}, open) {
  const places = new Map();
  const columns = [];
  for (const node of nodes) (columns[node.depth] ??= []).push(node);
  columns.forEach((column, depth) =>
    column.forEach((node, row) =>
      places.set(node.key, {
        x: depth * (WIDTH + 2 * GAP),
        y: row * (HEIGHT + GAP),
      }),
    ),
  );
  const width = columns.length * (WIDTH + 2 * GAP) - 2 * GAP;
  const height = Math.max(...columns.map((column) => column.length)) * (HEIGHT + GAP) - GAP;
  const lines = edges.map(([from, to]) => {
    const [a, b] = [places.get(from), places.get(to)];
    const [x1, y1, x2, y2] = [a.x + WIDTH, a.y + HEIGHT / 2, b.x, b.y + HEIGHT / 2];
    return svg("path.edge", {d: `M${x1},${y1} C${x1 + GAP},${y1} ${x2 - GAP},${y2} ${x2},${y2}`});
  });
  const boxes = nodes.map((node) => box(node, places.get(node.key), node.key === root, open));
  return svg(
    "svg.graph",
    {
      viewBox: `-2 -2 ${width + 4} ${height + 4}`,
      style: {width: `${width + 4}px`},
      role: "group",
      "aria-label": "Artifacts and what was made from them",
    },
    lines,
    boxes,
  );
}

function box(node, {x, y}, isRoot, open) {
  const activate = (event) => {
    if (event.type === "click" || event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open(node.key);
    }
  };
  return svg(
    isRoot ? "g.node.root" : "g.node",
    {
      transform: `translate(${x},${y})`,
      tabindex: 0,
      role: "button",
      "aria-label": `${node.step}, ${node.kind}`,
      onclick: activate,
      onkeydown: activate,
    },
    svg("rect", {width: WIDTH, height: HEIGHT, rx: 6}),
    svg("text", {x: 10, y: 19}, node.step.length > 19 ? `${node.step.slice(0, 18)}…` : node.step),
    svg(
      "text.kind",
      {x: 10, y: 36},
      `${node.kind}${node.seconds ? `, ${short(node.seconds)} s` : ""}`,
    ),
  );
}

function details({step, kind, config, record, metrics, files, rows}) {
  return [
    el("h2", `${step} `, el("span.soft", kind)),
    folded(
      `Configuration (${config.filter((option) => option.changed).length} changed)`,
      listing(
        ["Option", "Value"],
        config.map((option) => [
          option.changed ? el("b", option.name) : option.name,
          JSON.stringify(option.value),
        ]),
      ),
      true,
    ),
    folded(
      `Metrics (${Object.keys(metrics).length})`,
      listing(
        ["Metric", "Value"],
        Object.entries(metrics).map(([name, value]) => [name, short(value)]),
      ),
    ),
    rows.length > 0 &&
      folded(
        `First rows (${rows.length})`,
        listing(
          Object.keys(rows[0]),
          rows.map((row) => Object.values(row)),
        ),
      ),
    folded(
      `Files (${files.length})`,
      listing(
        ["File", "Bytes"],
        files.map((file) => [file.name, file.bytes.toLocaleString()]),
      ),
    ),
    folded("Record", el("pre", {tabindex: 0}, JSON.stringify(record, null, 2))),
  ];
}

function folded(name, content, open = false) {
  return el("details", {open}, el("summary", name), content);
}

function listing(names, rows) {
  const lines = rows.map((row) =>
    el(
      "tr",
      row.map((cell) => el("td", cell)),
    ),
  );
  return table(names.join(", "), names, lines);
}
