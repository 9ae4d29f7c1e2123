/** The worklist: what came in, what was said of it, and what still needs a person. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { age, figure, moment, words } from "./format";
import { kept, ordered, useJobs, type Filters } from "./jobs";
import { useKeys } from "./keys";
import { go } from "./route";
import type { Job } from "./types";
import { DiceBar, Notice, ReviewMark, StateMark } from "./widgets";

const BAR = 2; // the column of the Dice's bars, which small screens do without

export function Worklist(): JSX.Element {
  const { jobs, more, problem, loadMore } = useJobs();
  const [filters, setFilters] = useState(kept.filters);
  const [chosen, setChosen] = useState(kept.chosen);
  const search = useRef<HTMLInputElement>(null);
  Object.assign(kept, { filters, chosen });
  const shown = jobs ? ordered(jobs, filters) : [];
  const index = shown.findIndex((job) => job.id === chosen);
  const move = (step: number) => {
    const next = shown[Math.min(Math.max(index + step, 0), shown.length - 1)];
    if (next) setChosen(next.id);
  };
  useKeys({
    j: () => move(1),
    ArrowDown: () => move(1),
    k: () => move(-1),
    ArrowUp: () => move(-1),
    Enter: () => index >= 0 && go(`#/jobs/${chosen}`),
    "/": () => search.current?.focus(),
  });
  useEffect(() => {
    document.querySelector("tr[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }, [chosen]);
  const waiting = jobs?.filter((job) => job.verdict === "flag" && !job.review).length ?? 0;
  const models = [...new Set(jobs?.map((job) => job.model))].sort();
  const choose = (change: Partial<Filters>) => setFilters({ ...filters, ...change });
  return (
    <section class="worklist" aria-label="Worklist">
      <div class="filters" role="search">
        <h1>
          {jobs ? `${waiting} flagged ${waiting === 1 ? "scan needs" : "scans need"} a person` : "Worklist"}
        </h1>
        <input
          ref={search}
          type="search"
          placeholder="Search  /"
          aria-label="Search jobs"
          value={filters.text}
          onInput={(event) => choose({ text: event.currentTarget.value })}
        />
        <Choice label="Verdict" value={filters.verdict} options={{ flag: "Flag", accept: "Accept" }} onChoose={(verdict) => choose({ verdict })} />
        <Choice label="Review" value={filters.review} options={{ none: "Not decided", done: "Decided" }} onChoose={(review) => choose({ review })} />
        <Choice label="State" value={filters.state} options={{ open: "Under way", failed: "No result" }} onChoose={(state) => choose({ state })} />
        {models.length > 1 && (
          <Choice label="Model" value={filters.model} options={Object.fromEntries(models.map((name) => [name, name]))} onChoose={(model) => choose({ model })} />
        )}
      </div>
      {problem && <Notice>{problem.message}</Notice>}
      <JobTable jobs={shown} chosen={chosen} onChoose={setChosen} />
      {jobs && shown.length === 0 && (
        <p class="empty">{jobs.length ? "No job fits these filters." : "No scan has come yet. Drop one onto this page."}</p>
      )}
      {more && (
        <button type="button" class="quiet" onClick={loadMore}>
          Load older jobs
        </button>
      )}
    </section>
  );
}

function Choice<T extends string>(props: {
  label: string;
  value: T | "";
  options: Partial<Record<T, string>>;
  onChoose: (value: T | "") => void;
}): JSX.Element {
  return (
    <label class="choice">
      <span>{props.label}</span>
      <select value={props.value} onChange={(event) => props.onChoose(event.currentTarget.value as T | "")}>
        <option value="">All</option>
        {(Object.entries(props.options) as [T, string][]).map(([value, title]) => (
          <option key={value} value={value}>
            {title}
          </option>
        ))}
      </select>
    </label>
  );
}

function JobTable(props: { jobs: Job[]; chosen: string | null; onChoose: (id: string) => void }): JSX.Element {
  const now = Date.now();
  return (
    <div class="scroll">
      <table class="jobs">
        <colgroup>
          {["108px", "138px", "104px", "64px", "", "112px", "150px", "62px", "124px"].map((width, column) => (
            <col key={column} class={column === BAR ? "bar" : ""} style={{ width }} />
          ))}
        </colgroup>
        <thead>
          <tr>
            <th scope="col">Verdict</th>
            <th scope="col" class="number">
              Predicted Dice
            </th>
            <td class="bar" />
            <th scope="col" class="number">
              NQM
            </th>
            <th scope="col">Reasons</th>
            <th scope="col">Review</th>
            <th scope="col">Model</th>
            <th scope="col" class="number">
              Age
            </th>
            <th scope="col">Job</th>
          </tr>
        </thead>
        <tbody>
          {props.jobs.map((job) => (
            <tr
              key={job.id}
              aria-selected={job.id === props.chosen}
              onClick={() => go(`#/jobs/${job.id}`)}
              onFocusCapture={() => props.onChoose(job.id)}
            >
              <td>
                <StateMark job={job} />
              </td>
              <td class="number">{dice(job)}</td>
              <td class="bar">
                <DiceBar job={job} />
              </td>
              <td class="number">{figure(job.nqm, 3)}</td>
              <td class="cut" title={(job.error ? [job.error] : job.reasons)?.map((one) => one.detail).join("\n")}>
                {(job.error ? [job.error] : job.reasons)?.map((one) => words(one.code)).join(", ")}
              </td>
              <td>
                <ReviewMark review={job.review} />
              </td>
              <td class="cut" title={`${job.model} ${job.version}`}>
                {job.model}
                <br />
                <small>{job.version}</small>
              </td>
              <td class="number" title={moment(job.created)}>
                {age(job.created, now)}
              </td>
              <td>
                <a href={`#/jobs/${job.id}`} class="id" aria-label={`Open job ${job.id.slice(0, 8)}`}>
                  {job.id.slice(0, 8)}
                </a>
                {job.priority === "urgent" && <strong> urgent</strong>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function dice(job: Job): string {
  if (job.predicted_dice === null || job.predicted_dice === undefined) return "–";
  const interval = job.dice_interval ? ` (${job.dice_interval.map((one) => one.toFixed(2)).join("–")})` : "";
  return figure(job.predicted_dice) + interval;
}
