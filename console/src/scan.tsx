/** One scan: the pictures, what was said of it, why, and what people decided. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { follow, getBytes, getJson, save, type Problem } from "./api";
import { Decide } from "./decide";
import { Evidence } from "./evidence";
import { figure, moment } from "./format";
import { useKeys } from "./keys";
import { go } from "./route";
import { kept, ordered } from "./jobs";
import type { Job, JobPage } from "./types";
import { Notice, StateMark } from "./widgets";
import { ViewPanel } from "./view";

const ENDED = ["succeeded", "failed", "cancelled"];

export function ScanPage({ id }: { id: string }): JSX.Element {
  const [job, setJob] = useState<Job | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const reload = () => getJson<Job>(`/jobs/${id}`).then(setJob, setProblem);
  useEffect(() => {
    const stop = new AbortController();
    const start = async () => {
      const now = await getJson<Job>(`/jobs/${id}`, stop.signal);
      setJob(now);
      if (ENDED.includes(now.state)) return;
      await follow(id, setJob, stop.signal);
      setJob(await getJson<Job>(`/jobs/${id}`, stop.signal));
    };
    start().catch((error: Problem) => !stop.signal.aborted && setProblem(error));
    return () => stop.abort();
  }, []);
  useKeys({
    Escape: () => go("#/"),
    j: () => void neighbour(id, 1),
    k: () => void neighbour(id, -1),
  });
  if (!job) return problem ? <Notice>{problem.message}</Notice> : <p class="empty">Loading…</p>;
  return (
    <div class="scan">
      <section class="viewing" aria-label="Scan">
        {job.state === "succeeded" ? <ViewPanel job={job} /> : <Waiting job={job} />}
      </section>
      <aside aria-label="Verdict and decision">
        <Heading job={job} />
        {problem && <Notice>{problem.message}</Notice>}
        {job.reasons && job.reasons.length > 0 && (
          <ul class="why" aria-label="Reasons">
            {job.reasons.map((one) => (
              <li key={one.code}>
                {one.detail} <code>{one.code}</code>
              </li>
            ))}
          </ul>
        )}
        {job.state === "succeeded" && <Decide job={job} onChange={reload} />}
        {job.verdict && <Evidence job={job} />}
        <Details job={job} />
      </aside>
    </div>
  );
}

/** Open the scan after, or before, this one in the worklist's order. */
async function neighbour(id: string, step: number): Promise<void> {
  const { jobs } = await getJson<JobPage>("/jobs?limit=200");
  const order = ordered(jobs, kept.filters);
  const at = order.findIndex((one) => one.id === id);
  const next = order[at + step];
  if (!next) return;
  kept.chosen = next.id;
  go(`#/jobs/${next.id}`);
}

function Heading({ job }: { job: Job }): JSX.Element {
  const interval = job.dice_interval?.map((one) => one.toFixed(2)).join(" to ");
  return (
    <div class="heading">
      <h1>
        <StateMark job={job} />
      </h1>
      {job.verdict && (
        <dl class="figures">
          <div>
            <dt>Predicted Dice</dt>
            <dd>
              {figure(job.predicted_dice)} {interval && <small>{interval}</small>}
            </dd>
          </div>
          <div>
            <dt>Required</dt>
            <dd>{figure(job.required_dice)}</dd>
          </div>
          <div>
            <dt>NQM</dt>
            <dd>
              {figure(job.nqm, 3)} {job.nqm_threshold != null && <small>limit {figure(job.nqm_threshold, 3)}</small>}
            </dd>
          </div>
          <div>
            <dt>Volume</dt>
            <dd>{figure(job.volume_ml)} ml</dd>
          </div>
        </dl>
      )}
    </div>
  );
}

function Waiting({ job }: { job: Job }): JSX.Element {
  if (job.state === "failed" || job.state === "cancelled")
    return <p class="empty">{job.error ? job.error.detail : "The job was cancelled."}</p>;
  return (
    <div class="empty">
      <p>{job.state === "queued" ? `Queued${job.position ? `, ${job.position} before it` : ""}` : `Working: ${job.stage}`}</p>
      <progress value={job.progress} max={1} aria-label="Progress of the job" />
    </div>
  );
}

function Details({ job }: { job: Job }): JSX.Element {
  const files: [string, string, string, string][] = [
    ["Mask", "mask", "mask.nii.gz", "application/gzip"],
    ["Uncertainty", "uncertainty", "uncertainty.nii.gz", "*/*"],
    ["Preview", "preview", "preview.png", "*/*"],
    ["Report", "report", "report.json", "application/json"],
  ];
  const [problem, setProblem] = useState<Problem | null>(null);
  const download = (path: string, name: string, accept: string) =>
    getBytes(`/jobs/${job.id}/${path}`, accept).then((bytes) => save(bytes, `${job.id}_${name}`), setProblem);
  return (
    <details open>
      <summary>Files and details</summary>
      {job.state === "succeeded" && (
        <p class="row">
          {files.map(([title, path, name, accept]) => (
            <button key={path} type="button" class="quiet" onClick={() => void download(path, name, accept)}>
              {title}
            </button>
          ))}
        </p>
      )}
      {problem && <Notice>{problem.message}</Notice>}
      {job.warnings?.map((one) => <Notice key={one} kind="info">{one}</Notice>)}
      {job.deliveries && job.deliveries.length > 0 && (
        <ul class="plain">
          {job.deliveries.map((one) => (
            <li key={one.destination}>
              {one.destination}: {one.state}
              {one.error ? ` (${one.error})` : ""}
            </li>
          ))}
        </ul>
      )}
      <dl class="facts">
        <Fact name="Job" value={job.id} />
        <Fact name="Model" value={`${job.model} ${job.version}`} />
        <Fact name="Received" value={moment(job.created)} />
        <Fact name="Took" value={job.seconds === undefined ? "–" : `${job.seconds.toFixed(1)} s, ${job.engine}`} />
        <Fact name="Rule" value={`${job.rule}, Dice ${job.min_dice}, at most ${(100 * job.alpha).toFixed(0)} % failures`} />
        <Fact name="Members" value={String(job.members)} />
        {job.roi && <Fact name="Region" value={job.roi} />}
      </dl>
    </details>
  );
}

function Fact({ name, value }: { name: string; value: string }): JSX.Element {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
