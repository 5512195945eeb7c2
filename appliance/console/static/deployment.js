// The course of a deployment as a chart. See page_deployment.go.
"use strict";
(() => {
  const place = document.getElementById("chart");
  const labels = place.dataset.labels.split("|");
  const samples = new Map(); // by time in ms: rates in bytes a second, as [right on disks, from appliance, from machines, from seed nodes]
  let chart = null;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rate = (n) => {
    let unit = 0;
    const names = ["B/s", "KB/s", "MB/s", "GB/s", "TB/s"];
    while (n >= 999.5 && unit < names.length - 1) {
      n /= 1000;
      unit++;
    }
    return (n >= 9.95 || unit === 0 ? n.toFixed(0) : n.toFixed(1)) + " " + names[unit];
  };
  const size = () => ({ width: Math.max(200, place.clientWidth), height: 240 });
  const clock = (t, seconds) => new Date(t * 1000).toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined, hourCycle: "h23" });
  const data = () => {
    const times = [...samples.keys()].sort((a, b) => a - b);
    return [times.map((t) => t / 1000), ...[0, 1, 2, 3].map((i) => times.map((t) => samples.get(t)[i]))];
  };
  const draw = () => {
    const line = (label, stroke, dash, fill) => ({ label, stroke, width: 2, dash, fill, points: { show: false }, value: (_, n) => (n == null ? "–" : rate(n)) });
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    chart?.destroy();
    const accent = colour("--accent");
    chart = new uPlot(
      {
        ...size(),
        cursor: { drag: { x: false, y: false } },
        scales: { y: { range: (_, low, high) => [0, Math.max(1e6, high * 1.05)] } },
        axes: [{ ...axis, values: (_, list, _axis, _space, step) => list.map((t) => clock(t, step < 60)) }, { ...axis, size: 76, values: (_, list) => list.map(rate) }],
        series: [
          { label: labels[4], value: (_, t) => (t == null ? "–" : clock(t, true)) },
          line(labels[0], accent, undefined, accent + "22"),
          line(labels[1], colour("--yellow"), [6, 4]),
          line(labels[2], colour("--green"), [2, 3]),
          line(labels[3], colour("--grey"), [10, 3, 2, 3]),
        ],
      },
      data(),
      place,
    );
  };
  const show = () => (chart ? chart.setData(data()) : draw());

  document.addEventListener("live:data", (e) => {
    for (const [key, value] of Object.entries(e.detail)) {
      if (value === null) samples.delete(Number(key));
      else samples.set(Number(key), value);
    }
    show();
  });
  let width = 0;
  new ResizeObserver(() => {
    if (chart && place.clientWidth !== width) chart.setSize(size());
    width = place.clientWidth;
  }).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart && draw());
  draw();
})();
