/** What the gateway's API answers with, as far as the page uses it (docs/api.md). */

export type State = "queued" | "running" | "succeeded" | "failed" | "cancelled";
export type Verdict = "accept" | "flag";
export type Decision = "confirm" | "reject" | "comment";

export interface Reason {
  code: string;
  detail: string;
}

/** What is said of one structure; the same figures stand in the job, of its worst one. */
export interface Figures {
  verdict?: Verdict;
  reasons?: Reason[];
  nqm?: number | null;
  nqm_threshold?: number | null;
  predicted_dice?: number | null;
  dice_interval?: [number, number] | null;
  required_dice?: number | null;
  pairwise_dice?: number | null;
  volume_ml?: number | null;
}

export interface Segment extends Figures {
  label: number | null;
  name: string;
}

export interface Standing {
  decision: Decision;
  at: string;
  client: string;
  reviewer: string;
}

export interface Delivery {
  destination: string;
  state: string;
  attempts: number;
  error: string | null;
}

export interface Job extends Figures {
  id: string;
  state: State;
  progress: number;
  stage: string;
  position: number | null;
  created: string;
  finished: string | null;
  model: string;
  version: string;
  min_dice: number;
  alpha: number;
  rule: string;
  members: number;
  roi: string | null;
  priority: string;
  error: Reason | null;
  seconds?: number;
  engine?: string;
  warnings?: string[];
  segments?: Segment[];
  deliveries?: Delivery[];
  review?: Standing | null;
}

export interface JobPage {
  jobs: Job[];
  next: string | null;
}

export interface Review {
  id: number;
  at: string;
  client: string;
  credential: string;
  reviewer: string;
  decision: Decision;
  comment: string;
}

export interface Outcomes {
  name: string;
  predicted: number[];
  dice: number[];
  refused: boolean[];
}

export interface Line {
  members: number;
  slope: number;
  intercept: number;
  residual: number;
}

export interface Measures {
  outcomes: number;
  dice_mean: number;
  dice_sd: number;
  failures: number;
  detected: number;
  detected_share: number;
  risk: number;
  false_positives: number;
  passes: number;
}

export interface Manifest {
  name: string;
  version: string;
  created: string;
  parameters: number;
  licence: string;
  attribution: string;
  intended_use: string;
  segments: { label: number; name: string }[];
  contract: { modalities: string[]; volume_ml: [number, number][] };
  calibration: {
    data: string;
    members: number;
    min_dice: number;
    alpha: number;
    outcomes: number;
    kinds: string[];
    structures: { lines: Line[] }[];
  };
  training: { data: string };
  metrics: { [kind: string]: { [structure: string]: { [condition: string]: Partial<Measures> } } };
}

export interface Model {
  name: string;
  versions: { version: string; usable: boolean; created: string | null }[];
  aliases: { [alias: string]: string } | null;
}

export interface Signal {
  signal: string;
  jobs: number;
  ks: number;
  limit: number;
  alarm: boolean;
  median: number | null;
  reference_median: number | null;
}

export interface Health {
  versions: { version: string; jobs: number; reference_scans: number | null; alarm: boolean; signals: Signal[] }[];
}
