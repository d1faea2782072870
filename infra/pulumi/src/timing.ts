/** How long stopping takes, so that the grace period, the load balancer and the shard agree. Seconds. */

/** The shard's own times; a test compares them with its source. */
export const SHARD = {
    /** `HAND_OVER`: for each step of giving the partitions back. */
    handOver: 2,
    /** `Tuning::drain`: over how long sessions are sent away. */
    drain: 5,
    /** For sessions that had to be closed, and for short work at the end. */
    closing: 3 + 2,
    /** `ServeSettings::grace`: for calls that are open when the port closes. */
    openCalls: 5,
};

/** Marking the lease, closing the partitions, releasing them, and ending the lease. */
const HAND_OVER_STEPS = 4;

export const SHARD_STOPS_WITHIN =
    HAND_OVER_STEPS * SHARD.handOver + SHARD.drain + SHARD.closing + SHARD.openCalls;

/** The load balancer stops sending new streams before the shard sends its sessions away. Short: the
 * partitions move only after it. */
export const PRE_STOP = 3;

const SPARE = 10;

/** After this a pod is killed. */
export const TERMINATION_GRACE = PRE_STOP + SHARD_STOPS_WITHIN + SPARE;

/** The load balancer keeps streams to a leaving pod for as long as the pod may live. */
export const CONNECTION_DRAINING = TERMINATION_GRACE;

/** Longest stream through the load balancer. Clients resume from their position. */
export const STREAM_TIMEOUT = 24 * 60 * 60;

/** Pub/Sub's least: it bounds how long the events of a dead shard are missing. */
export const BUS_LEASE = 10;

/** How long the bus keeps what a region that is away has not read. */
export const BUS_RETENTION = `${7 * 24 * 60 * 60}s`;
