"use strict";
// The map of bytes and the table that says the same. All else of the page needs no script.
(() => {
  const COLORS = 8, DEEP = 5, PARTS = 1500, LEAST = 6;
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const trees = data.trees.map((tree, at) => ({...tree, color: at % COLORS}));
  const sum = (key) => trees.reduce((total, tree) => total + tree[key], 0);
  const root = {
    name: data.name, bytes: sum("bytes"), files: sum("files"), invisible: sum("invisible"), folder: true,
    children: trees, more: 0, more_files: 0, more_bytes: 0,
  };
  let trail = [root], tiles = [], parts = 0;

  const size = (count) => {
    const units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let value = count, unit = 0;
    while (value >= 999.5 && unit < units.length - 1) { value /= 1000; unit += 1; }
    return unit ? value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0) + units[unit] : count + "B";
  };
  const share = (bytes, whole) => (whole ? bytes / whole * 100 : 0).toFixed(1) + "%";
  const files = (count) => count + (count === 1 ? " file" : " files");
  const entries = (count) => count + (count === 1 ? " entry" : " entries");
  const make = (kind, name, text) => {
    const made = document.createElement(kind);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // What is in a folder, with what was folded away as one thing more.
  const content = (node) => node.more ? [...node.children, {
    name: "… " + node.more + " more", bytes: node.more_bytes, files: node.more_files, invisible: null, folder: false,
    children: [], more: 0, rest: true,
  }] : node.children;
  const opens = (node) => content(node).length > 0;
  const color = (...way) => " c" + way.find((node) => node.color !== undefined).color;  // of the layer on the way

  // Squarified areas (Bruls, Huizing, van Wijk 2000): rows along the shorter side, closed when they get longer.
  const areas = (nodes, box) => {
    const full = nodes.filter((node) => node.bytes > 0).sort((one, other) => other.bytes - one.bytes);
    const whole = full.reduce((total, node) => total + node.bytes, 0);
    const scale = box.w * box.h / whole, placed = [];
    let {x, y, w, h} = box, row = [], area = 0;
    const worst = (list, total, side) => Math.max(
      side * side * list[0].bytes * scale / (total * total),
      total * total / (side * side * list[list.length - 1].bytes * scale),
    );
    const close = () => {
      const side = Math.min(w, h), depth = area / side;
      let along = 0;
      for (const node of row) {
        const length = node.bytes * scale / depth;
        const beside = w >= h ? {x, y: y + along, w: depth, h: length} : {x: x + along, y, w: length, h: depth};
        placed.push({node, ...beside});
        along += length;
      }
      if (w >= h) { x += depth; w -= depth; } else { y += depth; h -= depth; }
      row = []; area = 0;
    };
    for (const node of full) {
      const grown = area + node.bytes * scale, side = Math.min(w, h);
      if (row.length && worst([...row, node], grown, side) > worst(row, area, side)) close();
      row.push(node);
      area += node.bytes * scale;
    }
    if (row.length) close();
    return placed;
  };

  const place = (element, area, box) => {
    element.style.left = area.x / box.w * 100 + "%";
    element.style.top = area.y / box.h * 100 + "%";
    element.style.width = area.w / box.w * 100 + "%";
    element.style.height = area.h / box.h * 100 + "%";
  };
  const fill = (element, way, area, deep) => {
    const node = way[way.length - 1];
    if (area.w > 34 && area.h > 17) {
      const both = area.w > 12 * node.name.length + 60;
      const text = both ? node.name + "  " + size(node.bytes) : node.name;
      const label = make("span", "label", deep === 1 ? text : "");
      if (deep > 1) label.dataset.text = text;  // drawn by the style: a tile's own text is its name alone
      element.append(label);
    }
    const inner = {x: 0, y: 0, w: area.w - 2, h: area.h - 2}, head = area.h > 17 ? 20 : 2;
    if (deep < DEEP && inner.w > 24 && inner.h - head > 24) {
      const room = {x: 3, y: head, w: inner.w - 6, h: inner.h - head - 3};
      for (const found of areas(content(node), room)) {
        if (found.w < LEAST || found.h < LEAST || parts >= PARTS) continue;
        const part = make("span", "part" + color(...way, found.node) + (found.node.rest ? " rest" : ""));
        parts += 1;
        place(part, found, inner);
        fill(part, [...way, found.node], found, deep + 1);
        element.append(part);
      }
    }
    if (node.invisible && !element.querySelector(".part")) {
      const strip = make("span", "lost-strip");
      strip.style.width = node.invisible / node.bytes * 100 + "%";
      element.append(strip);
    }
  };
  const told = (node) => {
    const lost = node.invisible ? ", " + size(node.invisible) + " of it invisible" : "";
    const inside = node.folder || node.rest ? ", " + files(node.files) : "";
    const part = share(node.bytes, trail[trail.length - 1].bytes);
    return node.name + " " + size(node.bytes) + ", " + part + inside + lost;
  };

  const draw = () => {
    const map = $("map"), here = trail[trail.length - 1];
    const box = {x: 0, y: 0, w: map.clientWidth || 800, h: map.clientHeight || 400};
    parts = 0;
    tiles = areas(content(here), box).map((area) => {
      const kind = (area.node.rest ? " rest" : "") + (opens(area.node) ? " opens" : "");
      const tile = make("button", "tile" + color(...trail, area.node) + kind);
      tile.type = "button";
      tile.tabIndex = -1;
      tile.setAttribute("aria-label", told(area.node) + (opens(area.node) ? ", opens" : ""));
      place(tile, area, box);
      fill(tile, [...trail, area.node], area, 1);
      const say = () => { $("map-tile").textContent = told(area.node); };
      tile.addEventListener("focus", () => {
        tiles.forEach((other) => { other.tabIndex = other === tile ? 0 : -1; });
        say();
      });
      tile.addEventListener("mouseenter", say);
      tile.addEventListener("click", () => { if (opens(area.node)) enter([...trail, area.node], "map"); });
      return tile;
    });
    if (tiles.length) tiles[0].tabIndex = 0;
    map.replaceChildren(...tiles);
    if (!tiles.length) map.append(make("p", "label", "nothing here has content"));
  };

  const steps = () => {
    $("map-path").replaceChildren(...trail.map((node, at) => {
      const item = make("li"), button = make("button", "", node.name);
      button.type = "button";
      if (at === trail.length - 1) button.setAttribute("aria-current", "location");
      button.addEventListener("click", () => enter(trail.slice(0, at + 1), "path"));
      item.append(button);
      return item;
    }));
  };

  const rows = () => {
    const here = trail[trail.length - 1];
    const way = trail.slice(1).map((node) => node.name).join(" / ");
    $("bytes-caption").textContent = way ? "In " + way : "All layers";
    $("bytes-rows").replaceChildren(...content(here).map((node) => {
      const row = make("tr"), head = make("th");
      head.scope = "row";
      if (node.color !== undefined) head.append(make("span", "chip c" + node.color, trees.indexOf(node) + 1), " ");
      if (opens(node)) {
        const button = make("button", "", node.name);
        button.type = "button";
        button.addEventListener("click", () => enter([...trail, node], "table"));
        head.append(button);
      } else {
        head.append(node.name);
      }
      const lost = node.invisible === null ? "–" : size(node.invisible);
      const cells = [size(node.bytes), share(node.bytes, here.bytes), node.files, lost];
      row.append(head, ...cells.map((text) => make("td", "n", text)));
      return row;
    }));
  };

  const enter = (where, from) => {
    trail = where;
    draw(); steps(); rows();
    if (!from) return;
    const here = trail[trail.length - 1];
    $("map-live").textContent = here.name + ", " + size(here.bytes) + ", " + entries(content(here).length);
    if (from === "map" && tiles.length) tiles[0].focus();
    if (from === "path") $("map-path").lastElementChild.firstElementChild.focus();
    if (from === "table") $("bytes-table").parentElement.focus();
  };

  $("map").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const at = tiles.indexOf(document.activeElement), last = tiles.length - 1;
    const on = at + 1, back = at - 1;
    const next = {ArrowRight: on, ArrowDown: on, ArrowLeft: back, ArrowUp: back, Home: 0, End: last}[event.key];
    if (event.key === "Escape" && trail.length > 1) enter(trail.slice(0, -1), "map");
    else if (next === undefined || at < 0) return;
    else tiles[Math.min(Math.max(next, 0), last)].focus();
    event.preventDefault();
  });
  let waiting = 0, width = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      if ($("map").clientWidth === width || $("map").contains(document.activeElement)) return;
      width = $("map").clientWidth;
      draw();
    });
  }).observe($("map"));

  document.documentElement.classList.add("scripted");
  enter(trail, "");
  width = $("map").clientWidth;
  document.documentElement.dataset.ready = Math.round(performance.now()); // milliseconds since the page was asked for
})();
