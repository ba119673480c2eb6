// Elements without HTML strings: what models, pages and files say is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";

// el("button.primary", {type: "button", onclick: f}, "Send", child, [children])
// Properties: on* are listeners; `data` and `style` are objects; others are attributes, where
// false and null leave an attribute out and true sets it empty.
export function el(selector, ...rest) {
  return build(selector, rest, (tag) => document.createElement(tag));
}

export function svg(selector, ...rest) {
  return build(selector, rest, (tag) => document.createElementNS(SVG, tag));
}

function build(selector, rest, create) {
  const [tag, ...classes] = selector.split(".");
  const node = create(tag);
  if (classes.length) node.classList.add(...classes);
  if (isProperties(rest[0])) setProperties(node, rest.shift());
  append(node, rest);
  return node;
}

function isProperties(value) {
  return (
    value !== null && typeof value === "object" && !Array.isArray(value) && !(value instanceof Node)
  );
}

function setProperties(node, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "style") setStyle(node, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value);
    }
  }
}

// By the object model: the content security policy forbids style attributes in HTML.
function setStyle(node, style) {
  for (const [name, value] of Object.entries(style)) node.style.setProperty(name, value);
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child); // a string becomes a text node
  }
}

export function replace(node, ...children) {
  node.replaceChildren();
  append(node, children);
  return node;
}

// A label with its control; the control gets an id if it has none.
let lastId = 0;
export function labeled(text, control) {
  if (!control.id) control.id = `control-${++lastId}`;
  return el("div.field", el("label", {for: control.id}, text), control);
}

export function select(options, chosen, onchange) {
  return el(
    "select",
    {onchange: (event) => onchange?.(event.target.value)},
    options.map((option) => el("option", {value: option, selected: option === chosen}, option)),
  );
}
