// Text of a model to DOM nodes: paragraphs, headings, lists, quotes, code, bold, italic and http(s) links.
// Only createElement and text nodes are used, so nothing in the text can become markup or script.

const FENCE = /^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const ITEM = /^(\s*)(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const QUOTE = /^\s{0,3}>\s?(.*)$/;
const RULE = /^\s{0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
// Code first: nothing inside it is markup. Each alternative is bounded by its own end mark.
const INLINE = /(`+)([^`]|[^`].*?[^`])\1(?!`)|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)|\*\*(?=\S)(.+?)(?<=\S)\*\*|(?<!\w)__(?=\S)(.+?)(?<=\S)__(?!\w)|\*(?=[^\s*])([^*\n]+?)(?<=\S)\*|(?<!\w)_(?=\S)([^_\n]+?)(?<=\S)_(?!\w)|(https?:\/\/[^\s<>()"']*[^\s<>()"'.,;:!?])/g;
const DEEPEST = 4;

/** Nodes for `text`; `onCopy(code)` is called by the button of a code block. */
export function render(text, onCopy) {
  const fragment = document.createDocumentFragment();
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  let at = 0;
  while (at < lines.length) at = block(lines, at, fragment, onCopy);
  return fragment;
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
  while (at < lines.length && lines[at].trim() && ![FENCE, HEADING, QUOTE, ITEM, RULE].some((mark) => mark.test(lines[at])));
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
