/** The jobs that the worklist and the scan view go through, and their order. */

import { useEffect, useRef, useState } from "preact/hooks";
import { getJson, Polled, type Problem } from "./api";
import type { Job, JobPage } from "./types";

const PAGE = 200;
const BUSY_MS = 2000;
const IDLE_MS = 8000;

export interface Filters {
  text: string;
  verdict: "" | "flag" | "accept";
  state: "" | "open" | "failed";
  review: "" | "none" | "done";
  model: string;
}

export const EVERYTHING: Filters = { text: "", verdict: "", state: "", review: "", model: "" };

/** What the worklist shows; kept while the tab is open, so that one comes back to the same list. */
export const kept: { filters: Filters; chosen: string | null } = { filters: EVERYTHING, chosen: null };

export interface Listing {
  jobs: Job[] | null;
  more: boolean;
  problem: Problem | null;
  loadMore: () => void;
}

/** The newest jobs, asked for again every few seconds while the page is seen; older ones on demand, once. */
export function useJobs(): Listing {
  const [newest, setNewest] = useState<JobPage | null>(null);
  const [older, setOlder] = useState<Job[]>([]);
  const [next, setNext] = useState<string | null | undefined>(undefined);
  const [problem, setProblem] = useState<Problem | null>(null);
  const busy = useRef(false);
  useEffect(() => {
    const polled = new Polled<JobPage>(`/jobs?limit=${PAGE}`);
    const stop = new AbortController();
    let timer = 0;
    const round = async () => {
      try {
        const page = document.hidden ? null : await polled.get(stop.signal);
        if (page) {
          busy.current = page.jobs.some((job) => job.state === "queued" || job.state === "running");
          setNewest(page);
        }
        setProblem(null);
      } catch (error) {
        if (stop.signal.aborted) return;
        setProblem(error as Problem);
        if ((error as Problem).status === 401) return; // a key is being asked for
      }
      timer = setTimeout(round, busy.current ? BUSY_MS : IDLE_MS);
    };
    void round();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, []);
  const following = next === undefined ? newest?.next : next;
  const loadMore = () => {
    if (!following) return;
    getJson<JobPage>(following).then(
      (page) => {
        setOlder([...older, ...page.jobs]);
        setNext(page.next);
      },
      (error: Problem) => setProblem(error),
    );
  };
  const known = new Set(newest?.jobs.map((job) => job.id));
  const jobs = newest && [...newest.jobs, ...older.filter((job) => !known.has(job.id))];
  return { jobs, more: Boolean(following), problem, loadMore };
}

/** What needs a person first: flagged and not decided, then what is under way, then the rest; each newest first. */
export function rank(job: Job): number {
  if (job.review) return 4;
  if (job.verdict === "flag") return 0;
  if (job.state === "queued" || job.state === "running") return 1;
  return job.verdict === "accept" ? 2 : 3;
}

export function ordered(jobs: Job[], filters: Filters): Job[] {
  const text = filters.text.trim().toLowerCase();
  return jobs
    .filter((job) => fits(job, filters) && (!text || haystack(job).includes(text)))
    .sort((a, b) => rank(a) - rank(b) || Date.parse(b.created) - Date.parse(a.created));
}

function fits(job: Job, filters: Filters): boolean {
  const open = job.state === "queued" || job.state === "running";
  return (
    (!filters.verdict || job.verdict === filters.verdict) &&
    (!filters.model || job.model === filters.model) &&
    (!filters.review || (filters.review === "done") === Boolean(job.review)) &&
    (!filters.state || (filters.state === "open" ? open : job.state === "failed" || job.state === "cancelled"))
  );
}

function haystack(job: Job): string {
  const reasons = job.reasons?.map((one) => one.code) ?? [];
  return [job.id, job.model, job.version, job.state, job.error?.code ?? "", job.review?.reviewer ?? "", ...reasons]
    .join(" ")
    .toLowerCase();
}
