/** How the service does: verdicts by day, distributions against the calibration, drift, versions compared. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { getJson, type Problem } from "./api";
import { Days, Histogram, type Day } from "./charts";
import { readVersion } from "./evidence";
import { figure, median, percent } from "./format";
import type { Health, Job, JobPage, Outcomes } from "./types";
import { Notice } from "./widgets";

const JOBS_MAX = 2000;
const PAGE = 500;
const DAYS_MAX = 30;

export function QualityPage(): JSX.Element {
  const [jobs, setJobs] = useState<Job[] | null>(null);
  const [model, setModel] = useState("");
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    readJobs(stop.signal).then(
      (found) => {
        setJobs(found);
        setModel(found[0]?.model ?? "");
      },
      (error: Problem) => !stop.signal.aborted && setProblem(error),
    );
    return () => stop.abort();
  }, []);
  if (problem) return <Notice>{problem.message}</Notice>;
  if (!jobs) return <p class="empty">Loading…</p>;
  if (!jobs.length) return <p class="empty">No scan has come yet.</p>;
  const models = [...new Set(jobs.map((job) => job.model))].sort();
  const chosen = jobs.filter((job) => job.model === model);
  return (
    <div class="page">
      <header class="row">
        <h1>Quality</h1>
        <label class="choice">
          <span>Model</span>
          <select value={model} onChange={(event) => setModel(event.currentTarget.value)}>
            {models.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        <span class="faint">of the newest {jobs.length} jobs that this key sees</span>
      </header>
      <section class="card" aria-label="Verdicts by day">
        <h2>Verdicts by day</h2>
        <Verdicts jobs={chosen} />
      </section>
      <Distributions key={model} jobs={chosen} />
      <section class="card" aria-label="Versions">
        <h2>Versions compared</h2>
        <Versions jobs={chosen} />
      </section>
      <Drift key={`drift ${model}`} model={model} />
    </div>
  );
}

async function readJobs(signal: AbortSignal): Promise<Job[]> {
  const jobs: Job[] = [];
  let path: string | null = `/jobs?limit=${PAGE}`;
  while (path && jobs.length < JOBS_MAX) {
    const page: JobPage = await getJson<JobPage>(path, signal);
    jobs.push(...page.jobs);
    path = page.next;
  }
  return jobs;
}

function Verdicts({ jobs }: { jobs: Job[] }): JSX.Element {
  const days = new Map<string, Day>();
  for (const job of jobs) {
    if (!job.finished) continue;
    const day = job.finished.slice(0, 10);
    const row = days.get(day) ?? { day, accept: 0, flag: 0, failed: 0 };
    row[job.verdict ?? "failed"] += 1;
    days.set(day, row);
  }
  const shown = [...days.values()].sort((a, b) => a.day.localeCompare(b.day)).slice(-DAYS_MAX);
  return (
    <div class="beside">
      <Days days={shown} />
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">Day (UTC)</th>
              {["Accept", "Flag", "No result"].map((one) => (
                <th scope="col" class="number" key={one}>{one}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {[...shown].reverse().map((one) => (
              <tr key={one.day}>
                <td>{one.day}</td>
                <td class="number">{one.accept}</td>
                <td class="number">{one.flag}</td>
                <td class="number">{one.failed}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </div>
  );
}

/** Of the newest version: predicted Dice beside that of the calibration, and NQM. */
function Distributions({ jobs }: { jobs: Job[] }): JSX.Element | null {
  const version = jobs[0]?.version ?? "";
  const model = jobs[0]?.model ?? "";
  const [outcomes, setOutcomes] = useState<Outcomes | null>(null);
  useEffect(() => {
    if (version) readVersion(model, version).then((known) => setOutcomes(known.structures[0] ?? null), () => undefined);
  }, [version]);
  const mine = jobs.filter((job) => job.version === version && job.verdict);
  if (!mine.length) return null;
  const numbers = (name: "predicted_dice" | "nqm") => mine.flatMap((job) => (job[name] == null ? [] : [job[name]]));
  const calibration = outcomes ? [{ title: "calibration, damage included", values: outcomes.predicted, kind: "range" as const }] : [];
  return (
    <section class="card" aria-label="Distributions">
      <h2>Figures of {version}</h2>
      <div class="beside">
        <Histogram title="predicted Dice" max={1} series={[...calibration, { title: "these jobs", values: numbers("predicted_dice"), kind: "here" }]} />
        <Histogram title="NQM" max={Math.max(0.5, ...numbers("nqm"))} series={[{ title: "these jobs", values: numbers("nqm"), kind: "here" }]} />
      </div>
    </section>
  );
}

function Versions({ jobs }: { jobs: Job[] }): JSX.Element {
  const versions = [...new Set(jobs.map((job) => job.version))].sort().reverse();
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Version</th>
            {["Jobs", "Flagged", "Median Dice", "Median NQM", "Confirmed", "Rejected", "Overruled"].map((one) => (
              <th scope="col" class="number" key={one}>{one}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {versions.map((version) => (
            <VersionRow key={version} version={version} jobs={jobs.filter((job) => job.version === version && job.verdict)} />
          ))}
        </tbody>
      </table>
      <p class="faint">Overruled: accepted masks that a person rejected, and flagged ones that a person confirmed.</p>
    </div>
  );
}

function VersionRow({ version, jobs }: { version: string; jobs: Job[] }): JSX.Element {
  const count = (fits: (job: Job) => boolean) => jobs.filter(fits).length;
  const flagged = count((job) => job.verdict === "flag");
  const overruled = count((job) => (job.verdict === "flag" ? job.review?.decision === "confirm" : job.review?.decision === "reject"));
  return (
    <tr>
      <td>{version}</td>
      <td class="number">{jobs.length}</td>
      <td class="number">{flagged} ({percent(jobs.length ? flagged / jobs.length : null, 0)})</td>
      <td class="number">{figure(median(jobs.flatMap((job) => (job.predicted_dice == null ? [] : [job.predicted_dice]))))}</td>
      <td class="number">{figure(median(jobs.flatMap((job) => (job.nqm == null ? [] : [job.nqm]))), 3)}</td>
      <td class="number">{count((job) => job.review?.decision === "confirm")}</td>
      <td class="number">{count((job) => job.review?.decision === "reject")}</td>
      <td class="number">{overruled}</td>
    </tr>
  );
}

function driftWord(version: Health["versions"][number]): string {
  if (version.reference_scans === null) return "no reference to compare with";
  if (version.signals.length === 0) return `too few jobs to compare (${version.jobs})`;
  return version.alarm ? "its scans have changed" : "no change is seen";
}

/** Whether the last jobs look like those of the calibration. */
function Drift({ model }: { model: string }): JSX.Element | null {
  const [health, setHealth] = useState<Health | null>(null);
  useEffect(() => {
    getJson<Health>(`/models/${encodeURIComponent(model)}/health`).then(setHealth, () => undefined);
  }, []);
  if (!health) return null;
  return (
    <section class="card" aria-label="Drift">
      <h2>Drift</h2>
      {health.versions.map((one) => (
        <div key={one.version}>
          <h3>
            {one.version}: {driftWord(one)}
          </h3>
          {one.signals.length > 0 && (
            <div class="scroll">
              <table>
                <thead>
                  <tr>
                    <th scope="col">Signal</th>
                    {["Jobs", "Distance", "Limit", "Median", "Reference"].map((title) => (
                      <th scope="col" class="number" key={title}>{title}</th>
                    ))}
                    <th scope="col">State</th>
                  </tr>
                </thead>
                <tbody>
                  {one.signals.map((signal) => (
                    <tr key={signal.signal}>
                      <td>{signal.signal.replaceAll("_", " ")}</td>
                      <td class="number">{signal.jobs}</td>
                      <td class="number">{figure(signal.ks)}</td>
                      <td class="number">{figure(signal.limit)}</td>
                      <td class="number">{figure(signal.median, 3)}</td>
                      <td class="number">{figure(signal.reference_median, 3)}</td>
                      <td>{signal.alarm ? <strong>alarm</strong> : "calm"}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )}
        </div>
      ))}
    </section>
  );
}
