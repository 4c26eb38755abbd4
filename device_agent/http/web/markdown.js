// Text of a model to DOM nodes: paragraphs, headings, lists, quotes, tables, code, bold, italic and http(s) links.
// Only createElement and text nodes are used, so nothing in the text can become markup or script.

const FENCE = /^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const ITEM = /^(\s*)(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const QUOTE = /^\s{0,3}>\s?(.*)$/;
const RULE = /^\s{0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
// Code first: nothing inside it is markup. Each alternative is bounded by its own end mark.
const INLINE = /(`+)([^`]|[^`].*?[^`])\1(?!`)|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)|\*\*(?=\S)(.+?)(?<=\S)\*\*|(?<!\w)__(?=\S)(.+?)(?<=\S)__(?!\w)|\*(?=[^\s*])([^*\n]+?)(?<=\S)\*|(?<!\w)_(?=\S)([^_\n]+?)(?<=\S)_(?!\w)|(https?:\/\/[^\s<>()"']*[^\s<>()"'.,;:!?])/g;
const DIVIDER = /^\s{0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
/** What ends a paragraph by beginning something else. */
const STARTS = [FENCE, HEADING, QUOTE, ITEM, RULE];
const DEEPEST = 4;
const MOST_COLUMNS = 30;

/** Nodes for `text`; `onCopy(code)` is called by the button of a code block. */
export function render(text, onCopy) {
  const fragment = document.createDocumentFragment();
  const lines = linesOf(text);
  let at = 0;
  while (at < lines.length) at = block(lines, at, fragment, onCopy);
  return fragment;
}

/** A text that grows: what can no longer change is left as it is, and only the rest is drawn again. */
export class Growing {
  #node;
  #onCopy;
  #settled = 0; // characters whose blocks are final
  #tail = []; // nodes of the others

  constructor(node, onCopy) {
    this.#node = node;
    this.#onCopy = onCopy;
  }

  /** `text` begins with what was shown before. */
  show(text) {
    const rest = text.slice(this.#settled);
    const lines = linesOf(rest);
    const blocks = [];
    for (let at = 0; at < lines.length; ) {
      const parent = document.createDocumentFragment();
      const next = block(lines, at, parent, this.#onCopy);
      blocks.push({ at, next, nodes: [...parent.childNodes] });
      at = next;
    }
    for (const node of this.#tail) node.remove();
    for (const { nodes } of blocks) this.#node.append(...nodes);
    // A block is final once the next one has two whole lines: these decide where a paragraph, list or table ends.
    const whole = lines.length - 1;
    const started = blocks.filter(({ nodes }) => nodes.length);
    const last = started.findLastIndex((_, index) => started[index + 1]?.at + 2 <= whole);
    const final = last < 0 ? 0 : started[last + 1].at;
    // Line ends of another system are left to the last drawing: their length is not known here.
    if (final && !rest.includes("\r")) this.#settled += lines.slice(0, final).join("\n").length + 1;
    this.#tail = blocks.filter(({ at }) => this.#isOpen(at, final, rest)).flatMap(({ nodes }) => nodes);
  }

  #isOpen(at, final, rest) {
    return at >= final || rest.includes("\r");
  }
}

function linesOf(text) {
  return text.replace(/\r\n?/g, "\n").split("\n");
}

function block(lines, at, parent, onCopy) {
  const line = lines[at];
  if (!line.trim()) return at + 1;
  const fence = FENCE.exec(line);
  if (fence) return codeBlock(lines, at, fence, parent, onCopy);
  const heading = HEADING.exec(line);
  if (heading) {
    parent.append(inlineInto(element(heading[1].length < 3 ? "h3" : "h4"), heading[2]));
    return at + 1;
  }
  if (RULE.test(line)) {
    parent.append(element("hr"));
    return at + 1;
  }
  if (QUOTE.test(line)) return quote(lines, at, parent);
  if (ITEM.test(line)) return list(lines, at, parent);
  if (isTable(lines, at)) return table(lines, at, parent);
  return paragraph(lines, at, parent);
}

function codeBlock(lines, at, fence, parent, onCopy) {
  const body = [];
  let next = at + 1;
  while (next < lines.length && !lines[next].trim().startsWith(fence[1])) body.push(lines[next++]);
  const code = body.join("\n");
  const box = element("figure", "code");
  const head = element("figcaption");
  head.append(fence[2] || "code");
  const copy = element("button", "copy");
  copy.type = "button";
  copy.textContent = "Copy";
  copy.addEventListener("click", () => onCopy(code, copy));
  head.append(copy);
  const pre = element("pre");
  pre.tabIndex = 0; // scrolls sideways: must be reachable by keyboard
  const inner = element("code");
  inner.textContent = code;
  pre.append(inner);
  box.append(head, pre);
  parent.append(box);
  return next + 1;
}

function isTable(lines, at) {
  const divider = lines[at + 1] ?? "";
  if (!lines[at].includes("|") || !DIVIDER.test(divider)) return false;
  return cells(lines[at]).length === cells(divider).length;
}

function table(lines, at, parent) {
  const sides = cells(lines[at + 1]).map(
    (mark) => (mark.endsWith(":") ? (mark.startsWith(":") ? "middle" : "end") : ""),
  );
  const head = element("thead");
  const body = element("tbody");
  head.append(row(cells(lines[at]), "th", sides));
  let next = at + 2;
  for (; next < lines.length && lines[next].includes("|"); next++) body.append(row(cells(lines[next]), "td", sides));
  const grid = element("table");
  grid.append(head, body);
  const box = element("div", "table");
  box.tabIndex = 0; // scrolls sideways: must be reachable by keyboard
  box.append(grid);
  parent.append(box);
  return next;
}

function row(texts, kind, sides) {
  const line = element("tr");
  sides.forEach((side, index) => line.append(inlineInto(element(kind, side), texts[index] ?? "")));
  return line;
}

/** Cells of a line; a bar after a backslash is text. */
function cells(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inside.split(/(?<!\\)\|/, MOST_COLUMNS).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function quote(lines, at, parent) {
  const box = element("blockquote");
  const body = [];
  while (at < lines.length && QUOTE.test(lines[at])) body.push(QUOTE.exec(lines[at++])[1]);
  box.append(inlineInto(element("p"), body.join("\n")));
  parent.append(box);
  return at;
}

function list(lines, at, parent) {
  const open = []; // {indent, node} of the lists around the current item
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item) {
      // An indented line continues its item; a blank one only if another item follows.
      const last = open.at(-1)?.node.lastElementChild;
      if (lines[at].trim() && /^\s+/.test(lines[at]) && last) {
        last.append(" ");
        inlineInto(last, lines[at].trim());
      } else if (lines[at].trim() || !ITEM.test(lines[at + 1] ?? "")) {
        break;
      }
      at++;
      continue;
    }
    placeItem(open, item, parent);
    at++;
  }
  return at;
}

function placeItem(open, [, space, , number, text], parent) {
  const indent = space.length;
  while (open.length > 1 && indent < open.at(-1).indent) open.pop();
  const inside = open.at(-1);
  if (!inside || (indent > inside.indent + 1 && open.length < DEEPEST)) {
    const node = element(number === undefined ? "ul" : "ol");
    if (number !== undefined && number !== "1") node.start = Number(number);
    (inside?.node.lastElementChild ?? parent).append(node);
    open.push({ indent, node });
  }
  open.at(-1).node.append(inlineInto(element("li"), text));
}

function paragraph(lines, at, parent) {
  const body = [];
  do body.push(lines[at++]);
  while (at < lines.length && lines[at].trim() && !isTable(lines, at) && !STARTS.some((mark) => mark.test(lines[at])));
  parent.append(inlineInto(element("p"), body.join("\n")));
  return at;
}

function inlineInto(node, text, depth = 0) {
  let from = 0;
  for (const found of depth < DEEPEST ? text.matchAll(INLINE) : []) {
    node.append(text.slice(from, found.index));
    node.append(inlineNode(found, depth));
    from = found.index + found[0].length;
  }
  node.append(text.slice(from));
  return node;
}

function inlineNode([, , code, label, target, strong, strong2, emphasis, emphasis2, bare], depth) {
  if (code !== undefined) return inlineInto(element("code"), code, DEEPEST);
  if (strong ?? strong2) return inlineInto(element("strong"), strong ?? strong2, depth + 1);
  if (emphasis ?? emphasis2) return inlineInto(element("em"), emphasis ?? emphasis2, depth + 1);
  const link = element("a");
  link.href = target ?? bare; // the pattern lets nothing but http and https through
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
  return inlineInto(link, label ?? bare, label ? depth + 1 : DEEPEST);
}

function element(name, className) {
  const node = document.createElement(name);
  if (className) node.className = className;
  return node;
}
