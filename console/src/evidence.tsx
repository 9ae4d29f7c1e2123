/** Where this scan lies among those that the verdict was calibrated on, and the same figures per structure. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { getJson } from "./api";
import { Calibration, NqmLine } from "./charts";
import { figure } from "./format";
import type { Job, Manifest, Outcomes, Segment } from "./types";
import { Notice, VerdictMark } from "./widgets";

interface Known {
  manifest: Manifest;
  structures: Outcomes[];
}

/** Versions never change: what was read of one is good for as long as the tab is open. */
const known = new Map<string, Promise<Known>>();

export function readVersion(model: string, version: string): Promise<Known> {
  const path = `/models/${encodeURIComponent(model)}/versions/${encodeURIComponent(version)}`;
  const found = known.get(path);
  if (found) return found;
  const asked = Promise.all([getJson<Manifest>(path), getJson<{ structures: Outcomes[] }>(`${path}/calibration`)]).then(
    ([manifest, { structures }]) => ({ manifest, structures }),
  );
  asked.catch(() => known.delete(path));
  known.set(path, asked);
  return asked;
}

/** The structure that the job's own figures are of: the worst one. */
export function worst(job: Job): number {
  const found = (job.segments ?? []).findIndex((one) => one.predicted_dice === job.predicted_dice && one.nqm === job.nqm);
  return Math.max(found, 0);
}

export function Evidence({ job }: { job: Job }): JSX.Element {
  const [version, setVersion] = useState<Known | null>(null);
  const [gone, setGone] = useState(false);
  const [chosen, setChosen] = useState(() => worst(job));
  useEffect(() => {
    readVersion(job.model, job.version).then(setVersion, () => setGone(true));
  }, []);
  const segments = job.segments ?? [];
  const figures = segments[chosen] ?? job;
  const outcomes = version?.structures[chosen];
  const line = version?.manifest.calibration.structures[chosen]?.lines.find((one) => one.members === job.members);
  return (
    <section aria-label="Evidence">
      {segments.length > 1 && <Structures segments={segments} chosen={chosen} onChoose={setChosen} />}
      {gone && <Notice kind="info">The calibration of this version cannot be read.</Notice>}
      {outcomes && <Calibration outcomes={outcomes} figures={figures} minDice={job.min_dice} />}
      {line && <NqmLine line={line} figures={figures} minDice={job.min_dice} />}
    </section>
  );
}

function Structures(props: { segments: Segment[]; chosen: number; onChoose: (index: number) => void }): JSX.Element {
  return (
    <table class="structures">
      <thead>
        <tr>
          <th scope="col">Structure</th>
          <th scope="col">Verdict</th>
          <th scope="col" class="number">Dice</th>
          <th scope="col" class="number">NQM</th>
          <th scope="col" class="number bar">ml</th>
        </tr>
      </thead>
      <tbody>
        {props.segments.map((one, index) => (
          <tr key={one.name} aria-selected={index === props.chosen}>
            <td>
              <button type="button" class="link" onClick={() => props.onChoose(index)}>
                {one.name}
              </button>
            </td>
            <td>{one.verdict && <VerdictMark verdict={one.verdict} />}</td>
            <td class="number">{figure(one.predicted_dice)}</td>
            <td class="number">{figure(one.nqm, 3)}</td>
            <td class="number bar">{figure(one.volume_ml)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
