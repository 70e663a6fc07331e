/** What pods use of what they may, now and since the page was opened: memory and CPU against their limits, instances and how many of these are started. */

import type { JSX } from "preact";

import { at, keyOf, list, type Item } from "../kube/read";
import { bytes, cores, NOTHING, rate, whole } from "../model/format";
import { limitsOf } from "../model/workload";
import { together, type Usage as Used } from "../model/usage";
import { Chart, type Curve } from "./chart";
import { pasts } from "./live";
import { usedBy } from "./pods";
import { Section, Meter, Empty } from "./words";

/** What these pods use together now, as far as the stream of figures tells it. */
export function usedByAll(pods: readonly Item[]): Used | undefined {
  const known = pods.flatMap((pod) => usedBy(pod) ?? []);
  return known.length === 0 ? undefined : together(known);
}

/** The sum of limits; none where a container has none. */
function limitOf(pods: readonly Item[], name: string): number | undefined {
  const containers = pods.flatMap((pod) => list(pod, "spec", "containers"));
  if (containers.length === 0 || containers.some((container) => at(container, "resources", "limits", name) === undefined)) return undefined;
  return pods.reduce((sum, pod) => sum + (limitsOf(pod["spec"]).limit[name] ?? 0), 0);
}

export function Usage({ pods }: { pods: readonly Item[] }): JSX.Element | null {
  const now = usedByAll(pods);
  if (now === undefined) return null;
  const [memory, cpu] = [limitOf(pods, "memory"), limitOf(pods, "cpu")];
  const past = pasts.of(pods.map(keyOf));
  const times = past.map((one) => one.at / 1000);
  const curve = (name: string, colour: string, of: (one: Used) => number): Curve => ({ name, colour, values: past.map(of) });
  // Of what is counted, parts are none.
  const counted = (value: number) => (Number.isInteger(value) ? whole(value) : "");
  const limit = (of: number | undefined): Curve[] => (of === undefined ? [] : [{ name: "limit", colour: "busy", values: past.map(() => of) }]);
  const line = (name: string, used: string, most: number | undefined, share: number | undefined) => (
    <div class="tile">
      <span class="tile-name">{name}</span>
      <span class="tile-value">{used}</span>
      {most === undefined || share === undefined ? <small>no limit</small> : <Meter share={share} text={name === "Memory" ? `of ${bytes(most)}` : `of ${cores(most * 1000)}`} />}
    </div>
  );
  return (
    <Section title="Use" aside="since this page was opened, a quarter of an hour at most">
      <div class="tiles use">
        {line("Memory", bytes(now.bytes), memory, memory === undefined ? undefined : now.bytes / memory)}
        {line("CPU", cores(now.milliCores), cpu, cpu === undefined ? undefined : now.milliCores / (cpu * 1000))}
        <div class="tile">
          <span class="tile-name">Instances</span>
          <span class="tile-value">{whole(now.instances)}</span>
          <small>{now.starts > 0 ? `${rate(now.starts)} started` : now.instances === 0 ? "the next call starts one" : "none started now"}</small>
        </div>
      </div>
      {past.length < 2 ? (
        <Empty title={NOTHING}>Curves begin with the second reading, some seconds from now.</Empty>
      ) : (
        <div class="columns">
          <Chart title="Memory" times={times} curves={[curve("used", "accent", (one) => one.bytes), ...limit(memory)]} shown={bytes} height={120} />
          <Chart title="CPU" times={times} curves={[curve("used", "accent", (one) => one.milliCores), ...limit(cpu === undefined ? undefined : cpu * 1000)]} shown={cores} height={120} />
          <Chart title="Instances" times={times} curves={[curve("instances", "accent", (one) => one.instances)]} shown={counted} height={120} />
          <Chart title="Instances started a second" times={times} curves={[curve("started", "busy", (one) => one.starts)]} shown={rate} height={120} />
        </div>
      )}
    </Section>
  );
}
