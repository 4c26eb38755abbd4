// What the tests of the page ask a browser. The file is one expression: tests evaluate it and call a function of it.
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => colour.slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };

  return {
    audit: () => {
      const seen = (node) => node.checkVisibility(
        { visibilityProperty: true, opacityProperty: true },
      ) && node.getClientRects().length > 0;
      const name = (node) => {
        const by = node.getAttribute("aria-labelledby");
        return (node.ariaLabel || (by && document.getElementById(by)?.textContent) || node.textContent.trim() ||
          [...(node.labels ?? [])].map((label) => label.textContent.trim()).join("") || node.title || "").trim();
      };
      const short = (node) => node.outerHTML.slice(0, 90);
      const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
      const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
      const levels = all("h1, h2, h3, h4").map((node) => Number(node.tagName[1]));
      const problems = {
        nameless: all(
          "button, input, textarea, select, a, summary, dialog, nav, [role=group], [role=region], figure.plot",
        ).filter((node) => !name(node)).map(short),
        placeholderOnly: all("input, textarea, select").filter(
          (node) => !node.labels?.length && !node.ariaLabel,
        ).map(short),
        doubleIds: ids.filter((id, index) => ids.indexOf(id) !== index),
        dangling: [...document.querySelectorAll("[aria-labelledby], [aria-describedby], label[for]")].flatMap((node) =>
          ["aria-labelledby", "aria-describedby", "for"]
            .flatMap((key) => (node.getAttribute(key) ?? "").split(" "))
            .filter((id) => id && !document.getElementById(id))),
        headings: levels.filter((level) => level === 1).length === 1 ? [] : levels,
        landmarks: ["main", "nav"].filter((tag) => !document.querySelector(tag)),
        tables: all("table").filter((table) => !table.querySelector("th")).map(short),
        unsaidPictures: all("svg").filter(
          (node) => node.getAttribute("aria-hidden") !== "true" && !name(node),
        ).map(short),
        scrollersOutOfReach: all("pre, .table, .json").filter(
          (node) => node.scrollWidth > node.clientWidth + 1 && node.tabIndex < 0,
        ).map(short),
        language: document.documentElement.lang ? [] : ["none"],
        wide: [
          document.documentElement,
          ...all("main > section, #scroll, #conversations, dialog"),
        ].filter((node) => node.scrollWidth > node.clientWidth + 1).map(short),
      };
      return Object.fromEntries(Object.entries(problems).filter(([, found]) => found.length));
    },

    // Controls smaller than 44 px on a touch screen. Links inside sentences are exempt (WCAG 2.2, 2.5.8).
    small: () => [...document.querySelectorAll("button, select, summary, a, input:not([type=range]), textarea")]
      .filter((node) => node.checkVisibility({ visibilityProperty: true }) && !node.closest(
        ".prose p, .prose li, p, .pairs, h2, h3, .json, label",
      ))
      .map((node) => [node, node.getBoundingClientRect()])
      .filter(([node, { width, height }]) => width > 1 && (height < 43.9 || width < 43.9))
      .map(([node, { width, height }]) => `${node.outerHTML.slice(0, 90)} ${width} ${height}`),

    focused: () => {
      const node = document.activeElement;
      const style = getComputedStyle(node);
      const ring = style.outlineStyle !== "none" || node.closest(".composer:focus-within");
      return [node.ariaLabel || node.textContent.trim().slice(0, 40) || node.id, Boolean(ring), node === document.body];
    },

    // Visible texts with less contrast than 4.5 to 1 (WCAG 2.2, 1.4.3).
    unreadable: () => {
      const ground = (node) => {
        for (let at = node; at; at = at.parentElement) {
          const colour = rgba(getComputedStyle(at).backgroundColor);
          if (colour[3] > 250) return colour;
        }
        return [255, 255, 255, 255];
      };
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      const found = {};
      while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        const text = walker.currentNode.data.trim();
        if (!text || !node.checkVisibility({ visibilityProperty: true })) continue;
        if (node.closest("option, script, style, :disabled, .hidden, noscript, .skip")) continue;
        const ratio = contrast(rgba(getComputedStyle(node).color), ground(node));
        if (ratio < 4.5) found[`${node.tagName} ${node.className} ${walker.currentNode.data.slice(0, 30)}`] = ratio;
      }
      return found;
    },

    shapes: () => {
      const probe = document.body.appendChild(document.createElement("i"));
      const named = (name) => { probe.style.color = `var(--${name})`; return rgba(getComputedStyle(probe).color); };
      const shapes = ["series-0", "series-1", "series-2", "series-3", "series-4", "series-5", "strong-line", "accent"];
      return Object.fromEntries(shapes.map((name) => [name, contrast(named(name), named("surface"))]));
    },

    reachable: () => [...document.querySelectorAll("a[href], button, select, textarea, summary, input, [tabindex='0']")]
              .filter((node) => !node.disabled && node.checkVisibility({ visibilityProperty: true }))
              .map((node) => node.ariaLabel || node.textContent.trim().slice(0, 40) || node.id),

    moving: () => [...document.querySelectorAll("*")].filter((node) =>
              [getComputedStyle(node).animationDuration, getComputedStyle(node).transitionDuration]
                .some((times) => times.split(",").some((time) => parseFloat(time) > 0.01))).length,
  };
})()
