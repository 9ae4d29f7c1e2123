/** Stands in for the codecs of Zarr images, 1.3 MB of WebAssembly that no file here is read with (vite.config.js). */
export default class Absent {
  static fromConfig(): never {
    throw new Error("images in Zarr are not read here");
  }
}
