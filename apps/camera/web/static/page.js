// The page: frames with their classes drawn over them, statistics, and the controls. All drawing happens here, so that
// transparency, hidden classes and pauses cost the camera nothing. Video by WebRTC is drawn by the camera.

import { drawChart, recent } from "./charts.js";
import { buildLegend, enableChoice, showAreas } from "./legend.js";
import { connect } from "./live.js";
import { png } from "./png.js";
import { watchVideo } from "./video.js";

const STALE = 2;

const element = (id) => document.getElementById(id);
const canvas = element("picture");
const pen = canvas.getContext("2d");
const hidden = new Set();
const palette = new Uint8Array(768);
const opacity = new Uint8Array(256).fill(255);
let classes = "";
let shown = null;
let paused = false;
let owed = 0;
let points = [];
let drawing = Promise.resolve();
let wantsVideo = null;
let endVideo = null;

function state(name, text) {
  element("state").dataset.state = name;
  element("state").textContent = text;
}

function hello(facts) {
  element("source").textContent = facts.source;
  document.title = `edgeseg ${facts.source}`;
  owed = 0;
  if (classes !== JSON.stringify(facts.classes)) showClasses(facts);
  wantsVideo ??= facts.view === "video";
  element("view").disabled = "missing" in facts.video;
  element("view").title = facts.video.missing ?? `${facts.video.codec} over WebRTC, drawn by the camera`;
  if (wantsVideo && facts.video.missing) refused(facts.video.missing);
  else if (wantsVideo) showVideo();
}

function showClasses(facts) {
  classes = JSON.stringify(facts.classes);
  hidden.clear();
  facts.hidden.forEach((index) => hidden.add(index));
  palette.fill(0);
  facts.classes.forEach(({ color }, index) => palette.set(color, 3 * index));
  setAlpha(100 * facts.alpha);
  buildLegend(facts.classes, hidden, toggled);
  toggled();
}

// One after the other: a slow decoder never draws an old frame over a newer one.
function inTurn(step) {
  drawing = drawing.then(step).catch((error) => console.error(error));
}

function picture(message) {
  if (resting()) {
    owed++;
    return;
  }
  inTurn(async () => {
    try {
      const [frame, colors] = await Promise.all([createImageBitmap(message.jpeg), colored(message.map)]);
      // A page that nobody sees gets no animation frames, asks for no more pictures, and is sent none.
      await new Promise(requestAnimationFrame);
      // Asked last: a picture that was on its way when the page was paused would be drawn over the one to be looked at.
      if (resting()) {
        frame.close();
        colors.close();
      } else {
        shown?.frame.close();
        shown?.colors.close();
        shown = { ...message, frame, colors };
        draw();
      }
    } finally {
      if (resting()) owed++;
      else ready();
    }
  });
}

// Pictures are neither drawn nor asked for.
const resting = () => paused || endVideo !== null;

function goOn() {
  for (; !resting() && owed > 0; owed--) ready();
}

function showVideo() {
  if (endVideo) return;
  const video = element("video");
  endVideo = watchVideo(video, {
    playing: () => {
      element("picture").hidden = true;
      video.hidden = false;
      element("snapshot").disabled = false;
    },
    refused,
    // The page comes back to video when the server does.
    lost: () => {
      leaveVideo();
      note("The video ended. These are single pictures.");
    },
  });
  note("");
  wantsVideo = true;
  setControls();
  if (!paused) play();
}

function play() {
  // Ended before it began, by another click or by the server: nothing to report.
  element("video").play().catch(() => {});
}

function leaveVideo() {
  endVideo?.();
  endVideo = null;
  element("video").hidden = true;
  element("picture").hidden = false;
  setControls();
  goOn();
}

function refused(reason) {
  wantsVideo = false;
  leaveVideo();
  note(`No video by WebRTC: ${reason}. These are single pictures.`);
}

function note(text) {
  element("note").textContent = text;
  element("note").hidden = text === "";
}

function setControls() {
  const isVideo = endVideo !== null;
  element("view").setAttribute("aria-pressed", String(isVideo));
  element("alpha").disabled = isVideo;
  enableChoice(!isVideo);
  for (const id of ["snapshot", "mask", "mask_color"]) element(id).disabled = isVideo || !shown;
}

function colored(map) {
  return createImageBitmap(png(map, palette, opacity));
}

function draw() {
  if (!shown) return;
  if (canvas.width !== shown.frame.width || canvas.height !== shown.frame.height) {
    canvas.width = shown.frame.width;
    canvas.height = shown.frame.height;
  }
  pen.imageSmoothingEnabled = false;
  pen.globalAlpha = 1;
  pen.drawImage(shown.frame, 0, 0);
  pen.globalAlpha = element("alpha").value / 100;
  pen.drawImage(shown.colors, 0, 0, canvas.width, canvas.height);
  canvas.dataset.number = shown.number;
  setControls();
}

function toggled() {
  for (let index = 0; index < 256; index++) opacity[index] = hidden.has(index) ? 0 : 255;
  inTurn(async () => {
    if (!shown) return;
    const colors = await colored(shown.map);
    shown.colors.close();
    shown.colors = colors;
    draw();
  });
}

function setAlpha(percent) {
  element("alpha").value = percent;
  element("alpha_value").textContent = `${element("alpha").value} %`;
}

function statistics(numbers) {
  const { fps, latency_ms: latency, missed, areas, age_s: age } = numbers;
  element("fps").textContent = fps.toFixed(1);
  element("p50").textContent = latency ? latency.p50.toFixed(latency.p50 < 10 ? 1 : 0) : "–";
  element("p95").textContent = latency ? latency.p95.toFixed(latency.p95 < 10 ? 1 : 0) : "–";
  element("missed").textContent = missed;
  showAreas(areas);
  points = recent([...points, { time: performance.now() / 1000, fps, p50: latency?.p50, p95: latency?.p95 }]);
  drawCharts();
  if (age === null) state("wait", "no frame yet");
  else if (age > STALE) state("lost", `no frame for ${age.toFixed(0)} s`);
  else state(paused ? "wait" : "live", paused ? "paused" : "live");
}

function drawCharts() {
  drawChart(element("fps_chart"), points, [{ key: "fps", color: "--main" }]);
  drawChart(element("latency_chart"), points, [
    { key: "p95", color: "--second" },
    { key: "p50", color: "--main" },
  ]);
}

function setPaused(value) {
  paused = value;
  element("pause").setAttribute("aria-pressed", String(paused));
  element("pause").textContent = paused ? "Go on" : "Pause";
  state("wait", paused ? "paused" : "going on");
  if (paused) element("video").pause();
  else if (endVideo) play();
  goOn();
}

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function drawnVideo() {
  const video = element("video");
  const still = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
  still.getContext("2d").drawImage(video, 0, 0);
  return still;
}

const fileName = (kind, ending) => `${kind}_${String(shown.number).padStart(6, "0")}.${ending}`;

element("pause").onclick = () => setPaused(!paused);
element("snapshot").onclick = () => {
  const name = endVideo ? `snapshot_${new Date().toISOString().replace(/[:.]/g, "-")}.jpg` : fileName("snapshot", "jpg");
  (endVideo ? drawnVideo() : canvas).toBlob((blob) => save(blob, name), "image/jpeg", 0.92);
};
element("view").onclick = () => {
  wantsVideo = endVideo === null;
  if (wantsVideo) showVideo();
  else leaveVideo();
};
element("mask").onclick = () => save(png(shown.map), fileName("mask", "png"));
element("mask_color").onclick = () => save(png(shown.map, palette), fileName("mask_color", "png"));
element("alpha").oninput = () => {
  setAlpha(element("alpha").value);
  draw();
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
addEventListener("resize", drawCharts);
addEventListener("keydown", (event) => {
  if (event.key !== " " || event.target.closest("button, input")) return;
  event.preventDefault();
  setPaused(!paused);
});

drawCharts();
const ready = connect({ hello, statistics, picture, lost: () => state("lost", "connection lost") });
