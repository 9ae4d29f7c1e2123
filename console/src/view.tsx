/** The viewer with its controls. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { getBytes, type Problem } from "./api";
import { useKeys } from "./keys";
import type { Job } from "./types";
import type { Layout, Values, Viewer } from "./viewer";
import { Notice } from "./widgets";

const LAYOUTS: [Layout, string][] = [
  ["all", "All"],
  ["axial", "Axial"],
  ["coronal", "Coronal"],
  ["sagittal", "Sagittal"],
  ["render", "3-D"],
];
const SHOWN = 0.7;

export function ViewPanel({ job }: { job: Job }): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [viewer, setViewer] = useState<Viewer | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [layout, setLayout] = useState<Layout>("all");
  const [mask, setMask] = useState(true);
  const [uncertainty, setUncertainty] = useState(0);
  const [values, setValues] = useState<Values | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    let opened: Viewer | null = null;
    const open = async () => {
      const file = (name: string) => getBytes(`/jobs/${job.id}/${name}`, "application/gzip, */*;q=0.5", stop.signal);
      const [{ Viewer }, ...files] = await Promise.all([
        import("./viewer"), // most of the page's weight, and the worklist does without it
        file("scan"),
        file("mask"),
        file("uncertainty"),
      ]);
      if (stop.signal.aborted || !canvas.current) return;
      const on = await Viewer.on(canvas.current, setValues);
      opened = on;
      if (stop.signal.aborted) return on.close();
      await on.show(...files);
      if (!stop.signal.aborted) setViewer(on);
    };
    open().catch((error: Problem) => !stop.signal.aborted && setProblem(error));
    return () => {
      stop.abort();
      opened?.close();
    };
  }, []);
  useEffect(() => viewer?.setLayout(layout), [viewer, layout]);
  useEffect(() => viewer?.setMask(mask), [viewer, mask]);
  useEffect(() => viewer?.setUncertainty(uncertainty), [viewer, uncertainty]);
  useKeys({
    m: () => setMask(!mask),
    u: () => setUncertainty(uncertainty ? 0 : SHOWN),
    x: () => viewer?.mostUncertain(),
    ...Object.fromEntries(LAYOUTS.map(([name], number) => [String(number), () => setLayout(name)])),
  });
  return (
    <>
      <div class="controls" role="toolbar" aria-label="View">
        <span class="segmented" role="group" aria-label="Planes">
          {LAYOUTS.map(([name, title]) => (
            <button key={name} type="button" aria-pressed={layout === name} onClick={() => setLayout(name)}>
              {title}
            </button>
          ))}
        </span>
        <label>
          <input type="checkbox" checked={mask} onChange={() => setMask(!mask)} /> Mask
        </label>
        <label>
          Uncertainty
          <input
            type="range"
            min={0}
            max={1}
            step={0.05}
            value={uncertainty}
            onInput={(event) => setUncertainty(Number(event.currentTarget.value))}
          />
        </label>
        <button type="button" class="quiet" onClick={() => viewer?.mostUncertain()}>
          Most uncertain
        </button>
        <output class="values">{values && spoken(values)}</output>
      </div>
      {problem && <Notice>{problem.message}</Notice>}
      <div class="canvas">
        <canvas
          ref={canvas}
          aria-label="Three planes and a rendering of the scan with the outline of the mask; click to move the crosshair"
          data-ready={viewer ? "true" : "false"}
          data-mask-voxels={viewer?.maskVoxels}
        />
        {!viewer && !problem && <p class="overlay">Loading the scan…</p>}
      </div>
    </>
  );
}

function spoken({ mm, scan, label, deviation }: Values): string {
  const place = mm.map((one) => one.toFixed(0)).join(", ");
  return `${place} mm · value ${Number(scan.toPrecision(4))} · ${label ? `mask ${label}` : "outside"} · σ ${deviation.toFixed(2)}`;
}
