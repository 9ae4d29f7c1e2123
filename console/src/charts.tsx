/** Charts, drawn as SVG in their own units; what they show is said in words as well. */

import type { JSX } from "preact";
import { figure } from "./format";
import type { Figures, Line, Outcomes } from "./types";

const WIDTH = 320;
const HEIGHT = 200;
const LEFT = 46;
const BOTTOM = 26;
const TOP = 8;
const RIGHT = 8;

interface Scale {
  x: (value: number) => number;
  y: (value: number) => number;
}

function scaled(xMax: number, yMax: number): Scale {
  return {
    x: (value) => LEFT + (value / xMax) * (WIDTH - LEFT - RIGHT),
    y: (value) => HEIGHT - BOTTOM - (value / yMax) * (HEIGHT - BOTTOM - TOP),
  };
}

function Axes(props: { scale: Scale; xs: number[]; ys: number[]; xTitle: string; yTitle: string }): JSX.Element {
  const { scale, xs, ys } = props;
  return (
    <g class="axes">
      {ys.map((y) => (
        <g key={`y${y}`}>
          <path d={`M${LEFT} ${scale.y(y)}H${WIDTH - RIGHT}`} />
          <text x={LEFT - 5} y={scale.y(y) + 3.5} text-anchor="end">
            {tick(y)}
          </text>
        </g>
      ))}
      {xs.map((x) => (
        <text key={`x${x}`} x={scale.x(x)} y={HEIGHT - BOTTOM + 12} text-anchor="middle">
          {tick(x)}
        </text>
      ))}
      <text x={(LEFT + WIDTH - RIGHT) / 2} y={HEIGHT - 2} text-anchor="middle">
        {props.xTitle}
      </text>
      <text transform={`translate(8 ${(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)`} text-anchor="middle">
        {props.yTitle}
      </text>
    </g>
  );
}

function tick(value: number): string {
  return Number(value.toPrecision(3)).toString();
}

/** A path of one dot a point: thousands of them are one element. */
function dots(points: [number, number][]): string {
  return points.map(([x, y]) => `M${x.toFixed(1)} ${y.toFixed(1)}h0`).join("");
}

/** Predicted against true Dice of the calibration, and where this scan lies among them. */
export function Calibration(props: { outcomes: Outcomes; figures: Figures; minDice: number }): JSX.Element {
  const { outcomes, figures, minDice } = props;
  const scale = scaled(1, 1);
  const points = (refused: boolean) =>
    outcomes.predicted.flatMap((predicted, i): [number, number][] =>
      outcomes.refused[i] === refused ? [[scale.x(clamped(predicted)), scale.y(outcomes.dice[i] ?? 0)]] : [],
    );
  const { predicted_dice: predicted, required_dice: required, dice_interval: interval } = figures;
  const there = predicted !== null && predicted !== undefined;
  const said = there
    ? `Among ${outcomes.dice.length} outcomes of the calibration this scan is predicted Dice ${figure(predicted)}; ${figure(required)} is required.`
    : "No Dice was predicted for this scan.";
  return (
    <figure>
      <svg class="chart" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={said}>
        <Axes scale={scale} xs={[0, 0.2, 0.4, 0.6, 0.8, 1]} ys={[0, 0.2, 0.4, 0.6, 0.8, 1]} xTitle="predicted Dice" yTitle="true Dice" />
        <path class="dots" d={dots(points(false))} />
        <path class="dots refused" d={dots(points(true))} />
        <path class="limit" d={`M${LEFT} ${scale.y(minDice)}H${WIDTH - RIGHT}`} />
        {required !== null && required !== undefined && (
          <path class="limit strong" d={`M${scale.x(required)} ${TOP}V${HEIGHT - BOTTOM}`} />
        )}
        {there && interval && <path class="here" d={`M${scale.x(predicted)} ${scale.y(interval[0])}V${scale.y(interval[1])}`} />}
        {there && <circle class="here" cx={scale.x(predicted)} cy={scale.y(clamped(predicted))} r="4.5" />}
      </svg>
      <figcaption>
        {said} Dots are scans whose true Dice is known, orange ones were flagged for other reasons than their predicted Dice.
        The bar is the 90 % interval; broken lines are the required and the smallest Dice.
      </figcaption>
    </figure>
  );
}

function clamped(value: number): number {
  return Math.min(Math.max(value, 0), 1);
}

/** The line that leads from NQM to Dice, its threshold, and this scan. */
export function NqmLine(props: { line: Line; figures: Figures; minDice: number }): JSX.Element | null {
  const { line, figures, minDice } = props;
  const { nqm, nqm_threshold: threshold } = figures;
  if (nqm === null || nqm === undefined) return null;
  const xMax = Math.max(0.4, 1.15 * nqm);
  const scale = scaled(xMax, 1);
  const at = (x: number) => line.intercept + line.slope * x;
  const band = (shift: number) => `${scale.x(0)} ${scale.y(clamped(at(0) + shift))}L${scale.x(end(line, shift, xMax))} ${scale.y(clamped(at(end(line, shift, xMax)) + shift))}`;
  const above = threshold !== null && threshold !== undefined && nqm > threshold;
  const said = `NQM ${figure(nqm, 3)} is ${above ? "above" : "below"} the threshold ${figure(threshold, 3)}.`;
  return (
    <figure>
      <svg class="chart" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={said}>
        <Axes scale={scale} xs={[0, 0.25, 0.5, 0.75, 1].map((one) => one * xMax)} ys={[0, 0.2, 0.4, 0.6, 0.8, 1]} xTitle="NQM" yTitle="Dice by the line" />
        <path class="range" d={`M${band(0)}`} />
        <path class="limit" d={`M${LEFT} ${scale.y(minDice)}H${WIDTH - RIGHT}`} />
        {threshold !== null && threshold !== undefined && (
          <path class="limit strong" d={`M${scale.x(threshold)} ${TOP}V${HEIGHT - BOTTOM}`} />
        )}
        <path class="here" d={`M${scale.x(nqm)} ${HEIGHT - BOTTOM}V${scale.y(clamped(at(nqm)))}`} />
        <circle class="here" cx={scale.x(nqm)} cy={scale.y(clamped(at(nqm)))} r="4.5" />
      </svg>
      <figcaption>{said} The line was fitted on the calibration; the threshold is where it meets Dice {minDice}.</figcaption>
    </figure>
  );
}

/** Where the line leaves the chart. */
function end(line: Line, shift: number, xMax: number): number {
  return line.slope < 0 ? Math.min(xMax, (line.intercept + shift) / -line.slope) : xMax;
}

export interface Series {
  title: string;
  values: number[];
  kind: "range" | "here";
}

/** Distributions beside one another, each as shares of its own whole. */
export function Histogram(props: { title: string; series: Series[]; max: number; bins?: number }): JSX.Element {
  const { series, max, bins = 20 } = props;
  const shares = series.map((one) => histogram(one.values, max, bins));
  const yMax = Math.max(0.05, ...shares.flat());
  const scale = scaled(max, yMax);
  const width = (scale.x(max) - scale.x(0)) / bins;
  const said = series.map((one) => `${one.title}: ${one.values.length}`).join("; ");
  return (
    <figure>
      <svg class="chart" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${props.title}. ${said}.`}>
        <Axes scale={scale} xs={[0, 0.25, 0.5, 0.75, 1].map((one) => one * max)} ys={[0, yMax / 2, yMax]} xTitle={props.title} yTitle="share" />
        {series.map((one, number) => (
          <path
            key={one.title}
            class={`bars ${one.kind}`}
            d={(shares[number] ?? [])
              .map((share, bin) =>
                share ? `M${scale.x(0) + bin * width + 0.5} ${scale.y(0)}V${scale.y(share)}h${width - 1}V${scale.y(0)}z` : "",
              )
              .join("")}
          />
        ))}
      </svg>
      <figcaption class="legend">
        {series.map((one) => (
          <span key={one.title}>
            <i class={`swatch ${one.kind}`} /> {one.title} ({one.values.length})
          </span>
        ))}
      </figcaption>
    </figure>
  );
}

export function histogram(values: number[], max: number, bins: number): number[] {
  const counts = new Array<number>(bins).fill(0);
  for (const value of values) counts[Math.min(bins - 1, Math.max(0, Math.floor((value / max) * bins)))]! += 1;
  return counts.map((count) => (values.length ? count / values.length : 0));
}

export interface Day {
  day: string;
  accept: number;
  flag: number;
  failed: number;
}

/** Verdicts by day, stacked. */
export function Days({ days }: { days: Day[] }): JSX.Element {
  const yMax = Math.max(1, ...days.map((one) => one.accept + one.flag + one.failed));
  const scale = scaled(days.length, yMax);
  const width = Math.min(40, scale.x(1) - scale.x(0) - 2);
  return (
    <figure>
    <svg class="chart" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`Verdicts on ${days.length} days; the table has the figures.`}>
      <Axes scale={scale} xs={[]} ys={[0, yMax]} xTitle={days.length ? `${days[0]?.day} to ${days[days.length - 1]?.day}` : ""} yTitle="scans" />
      {days.map((one, number) => {
        const left = scale.x(number + 0.5) - width / 2;
        const bar = (from: number, count: number) => `M${left} ${scale.y(from)}V${scale.y(from + count)}h${width}V${scale.y(from)}z`;
        return (
          <g key={one.day}>
            <path class="bars accept" d={bar(0, one.accept)} />
            <path class="bars flag" d={bar(one.accept, one.flag)} />
            <path class="bars failed" d={bar(one.accept + one.flag, one.failed)} />
          </g>
        );
      })}
    </svg>
      <figcaption class="legend">
        {(["accept", "flag", "failed"] as const).map((one) => (
          <span key={one}>
            <i class={`swatch ${one}`} /> {one === "failed" ? "no result" : one}
          </span>
        ))}
      </figcaption>
    </figure>
  );
}
