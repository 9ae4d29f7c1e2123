/** The viewer: NiiVue on one canvas, with the scan, the mask's outline and the uncertainty. */

import { MULTIPLANAR_TYPE, Niivue, NVImage, NVMesh, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue";
import { applied, surface } from "./surface";

export type Layout = "all" | "axial" | "coronal" | "sagittal" | "render";

/** Values at the crosshair: the scan's, the mask's label, the ensemble's standard deviation. */
export interface Values {
  mm: [number, number, number];
  scan: number;
  label: number;
  deviation: number;
}

interface Location {
  mm: ArrayLike<number>;
  values: { value: number }[];
}

const SLICES: Record<Layout, SLICE_TYPE> = {
  all: SLICE_TYPE.MULTIPLANAR,
  axial: SLICE_TYPE.AXIAL,
  coronal: SLICE_TYPE.CORONAL,
  sagittal: SLICE_TYPE.SAGITTAL,
  render: SLICE_TYPE.RENDER,
};
/** Colours of the labels 0, 1, 2...; the first is the outline's in the preview. */
const LABELS = {
  R: [0, 64, 255, 170, 120],
  G: [0, 224, 150, 120, 200],
  B: [0, 208, 200, 255, 60],
  A: [0, 255, 255, 255, 255],
  I: [0, 1, 2, 3, 4],
};
const FILL = 0.25;
const OUTLINE_MM = 0.35;
const ILLUMINATION = 0.4;
const DEVIATION_MAX = 0.5; // the largest that values between 0 and 1 can have
const DEVIATION_MIN = 0.05;
const SCAN = 0;
const MASK = 1;
const UNCERTAINTY = 2;

export class Viewer {
  private readonly nv: Niivue;

  private constructor(nv: Niivue) {
    this.nv = nv;
  }

  static async on(canvas: HTMLCanvasElement, onValues: (values: Values) => void): Promise<Viewer> {
    const nv = new Niivue({
      backColor: [0.043, 0.055, 0.07, 1],
      crosshairColor: [0.35, 0.62, 1, 0.8],
      crosshairWidth: 0.3,
      crosshairWidthUnit: "percent",
      dragAndDropEnabled: false,
      fontColor: [0.78, 0.82, 0.87, 1],
      fontMinPx: 12,
      isCornerOrientationText: true,
      isRadiologicalConvention: true,
      loadingText: "",
      logLevel: "error",
      meshThicknessOn2D: OUTLINE_MM,
      multiplanarLayout: MULTIPLANAR_TYPE.GRID,
      multiplanarShowRender: SHOW_RENDER.ALWAYS,
      sagittalNoseLeft: true,
      show3Dcrosshair: true,
      tileMargin: 4,
    });
    await nv.attachToCanvas(canvas);
    await nv.setVolumeRenderIllumination(ILLUMINATION);
    nv.onLocationChange = (data) => onValues(values(data as Location));
    return new Viewer(nv);
  }

  /** Show a scan with its results: NIfTI, packed or not, all on one grid. */
  async show(scan: ArrayBuffer, mask: ArrayBuffer, uncertainty: ArrayBuffer): Promise<void> {
    const load = (bytes: ArrayBuffer, name: string) =>
      NVImage.loadFromFile({ file: new File([bytes], `${name}.nii`), name: `${name}.nii` });
    const [image, labels, deviation] = await Promise.all([load(scan, "scan"), load(mask, "mask"), load(uncertainty, "σ")]);
    labels.setColormapLabel(LABELS);
    labels.opacity = FILL;
    deviation.colormap = "warm"; // bright from its low end on, on dark tissue as well
    deviation.cal_min = DEVIATION_MIN;
    deviation.cal_max = DEVIATION_MAX;
    deviation.opacity = 0;
    this.outline(labels);
    this.nv.volumes = [image, labels];
    this.nv.addVolume(deviation); // with this one all three go to the graphics card, once
    this.centre();
  }

  /** The surface of every label, which a plane cuts in an outline. */
  private outline(image: NVImage): void {
    if (!image.img || !image.hdr) return;
    const [nx, ny] = dims(image);
    const voxels = image.img as Uint8Array; // as all masks are
    for (const label of new Set(voxels)) {
      if (!label) continue;
      const found = surface(voxels, [nx, ny, voxels.length / (nx * ny)], label, image.hdr.affine);
      const colour = new Uint8Array([...(["R", "G", "B"] as const).map((one) => LABELS[one][label] ?? 0), 255]);
      const mesh = new NVMesh(found.points, found.triangles, `label ${label}`, colour, 1, true, this.nv.gl);
      mesh.meshShaderIndex = this.nv.meshShaderNameToNumber("Crosscut") ?? 0;
      this.nv.addMesh(mesh);
    }
  }

  setLayout(layout: Layout): void {
    this.nv.setSliceType(SLICES[layout]);
  }

  setMask(shown: boolean): void {
    for (const mesh of this.nv.meshes) mesh.visible = shown;
    this.setOpacity(MASK, shown ? FILL : 0);
  }

  /** How strongly the uncertainty is shown, 0 to 1. */
  setUncertainty(opacity: number): void {
    this.setOpacity(UNCERTAINTY, opacity);
  }

  /** Go to the middle of the mask; of the scan, where the mask is empty. */
  centre(): void {
    const image = this.nv.volumes[MASK];
    if (!image?.img) return;
    const [nx, ny] = dims(image);
    const sum = [0, 0, 0];
    let count = 0;
    for (let i = 0; i < image.img.length; i++) {
      if (!image.img[i]) continue;
      const [x, y, z] = place(i, nx, ny);
      sum[0]! += x;
      sum[1]! += y;
      sum[2]! += z;
      count++;
    }
    if (count) this.goTo(sum.map((one) => Math.round(one / count)) as [number, number, number], image);
  }

  /** Go to the voxel on which the members disagree most. */
  mostUncertain(): void {
    const image = this.nv.volumes[UNCERTAINTY];
    if (!image?.img) return;
    let best = 0;
    for (let i = 1; i < image.img.length; i++) if (image.img[i]! > image.img[best]!) best = i;
    const [nx, ny] = dims(image);
    this.goTo(place(best, nx, ny), image);
  }

  /** Voxels of the mask, as the viewer has them. */
  get maskVoxels(): number {
    let count = 0;
    for (const value of (this.nv.volumes[MASK]?.img ?? []) as ArrayLike<number> & Iterable<number>) if (value) count++;
    return count;
  }

  close(): void {
    this.nv.cleanup();
    this.nv.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  private setOpacity(index: number, opacity: number): void {
    if (this.nv.volumes[index]?.opacity !== opacity) this.nv.setOpacity(index, opacity);
  }

  private goTo(voxel: [number, number, number], image: NVImage): void {
    const affine = image.hdr?.affine;
    if (!affine) return;
    const [x, y, z] = affine.slice(0, 3).map((row) => applied(row, voxel)) as [number, number, number];
    this.nv.scene.crosshairPos = this.nv.mm2frac([x, y, z, 1]);
    this.nv.createOnLocationChange();
    this.nv.drawScene();
  }
}

function dims(image: NVImage): [number, number] {
  const [, nx = 1, ny = 1] = image.hdr?.dims ?? [];
  return [nx, ny];
}

function place(index: number, nx: number, ny: number): [number, number, number] {
  return [index % nx, Math.floor(index / nx) % ny, Math.floor(index / (nx * ny))];
}

function values({ mm, values: found }: Location): Values {
  return {
    mm: [mm[0] ?? 0, mm[1] ?? 0, mm[2] ?? 0],
    scan: found[SCAN]?.value ?? 0,
    label: found[MASK]?.value ?? 0,
    deviation: found[UNCERTAINTY]?.value ?? 0,
  };
}
