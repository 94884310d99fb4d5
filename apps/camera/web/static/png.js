// Builds the PNG of a class map around the compressed pixels that the server sends.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const GREY = 0;
const INDEXED = 3;

const CRCS = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc(bytes) {
  let value = ~0;
  for (const byte of bytes) value = CRCS[(value ^ byte) & 0xff] ^ (value >>> 8);
  return ~value >>> 0;
}

function chunk(name, content) {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  for (let i = 0; i < 4; i++) bytes[4 + i] = name.charCodeAt(i);
  bytes.set(content, 8);
  view.setUint32(8 + content.length, crc(bytes.subarray(4, 8 + content.length)));
  return bytes;
}

// map: {width, height, pixels}; palette: 768 bytes, or none for class indices in one grey channel; opacity: 256 bytes, or
// none where every class is opaque.
export function png(map, palette, opacity) {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, map.width);
  view.setUint32(4, map.height);
  header[8] = 8;
  header[9] = palette ? INDEXED : GREY;
  const parts = [new Uint8Array(SIGNATURE), chunk("IHDR", header)];
  if (palette) parts.push(chunk("PLTE", palette));
  if (opacity) parts.push(chunk("tRNS", opacity));
  parts.push(chunk("IDAT", map.pixels), chunk("IEND", new Uint8Array(0)));
  return new Blob(parts, { type: "image/png" });
}
