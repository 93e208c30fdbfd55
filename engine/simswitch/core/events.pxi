# What the world outside may want to hear of an apply: the last outcome run, one row an event, numbered without a gap.
#
# The last of them are remembered in the state, so that a watcher misses none when the service starts again. All of them are in the
# journal: whoever replays a record gets its events again, with the same numbers.
#
#   kind         a                   b                         reason                    of a
#   ANNOUNCED    not before, ms      expected outage, ms       Priority                  swap, before it is ordered
#   WITHDRAWN    order, 0 none out   -                         WithdrawnBy               swap announced or ordered
#   ORDERED      order               target ICCID              Priority                  swap
#   REFUSED      order               attempts                  Acknowledgement;          swap
#                                                              0: a hello showed it
#   OVERDUE      order               ms since it was ordered   -                         swap: unknown from now on
#   CONFIRMED    order               ms since it was ordered   ConfirmedBy               swap
#   TRAFFIC      confirmed at, ms    outage, ms                -                         terminal: order to traffic
#   UNMEASURED   confirmed at, ms    -                         -                         terminal: no traffic in time
#   GIVEN_UP     order               attempts                  Acknowledgement           swap
#   DIFFERENCE   held ICCID, 0 none  believed ICCID, 0 none    Status of the hold;       terminal at a hello
#                                                              NO_LEASE: not named
#   JOB          JobState            left out, beyond its size JobWhy                    job
#   HEALTH       ICCID                     goodput, kbit/s, and from  the new Health            a SIM, of which somebody says so,
#                                          bit 32 windows, from 48                           or whose attach failed; with its
#                                          confidence, permille; 0:                          terminal while it is assigned
#                                          no evidence
#   CAP          quota, bytes; -1: none    lot or plan, and from bit  -                         the cap in force from now on, of a
#                                          16 Window, from 24 Basis                          lot or of a plan's lots
#   CAP_CHANGED  bytes; of a speed kbit/s  lot, and from bit 16        CapShift                a carrier was seen to keep another cap
#                                          Window, from 24 its first
#                                          evidence, Unix seconds                         than before: its terminal is that figure
#   RESET        lot, and from bit 16   SIMs                      -                         a window of a lot's SIMs has started anew
#                Window
#   TRUSTED      ICCID               goodput, kbit/s           -                         a SIM that was slowed before its reset, with
#                                                                                        the terminal that showed that it is fast
#   VALIDITY     lot                 -                         Validity                  whether a lot's SIMs work
#   POOL         lot                 left until its nearest cap,  Health                     what a lot's SIMs share is low or exhausted, or
#                                    bytes two's complement                                 is not any more
#   POOL_CORRECTED  lot, and from bit   carrier's less ours, bytes  -                        a carrier's figure that was taken, of a window
#                16 Window           two's complement                                    that the SIMs of a lot share: its terminal is by
#                                                                                        how much it is below the last one
#   POOL_ASIDE   lot, and from bit   bytes as told               Status                     such a figure that was not taken
#                16 Window
#   ENDLESS      lot                 SIMs; 0: one was slowed        1 prepaid             SIMs that were slowed and that no reset is known to
#                                                                                        bring back: they are on probation, a day later;
#                                                                                        prepaid ones stay slowed
#   DEATH        freed at, ms        -                         Death                     access server declared dead
#   BREAKER      entity              tried again at, ms        BreakerState              breaker
#   PAUSE        -                   -                         1 paused, 0 no longer     access server
#   SET_ASIDE    bytes as told       ICCID, 0 not known        Status                    terminal: a report not counted; no
#                                                                                        terminal: a carrier's figure not taken
#   CORRECTION   ICCID               carrier's less ours, bytes two's  Window                    a carrier's figure that was taken, of a
#                                    complement                                                  SIM's window; its terminal is by how
#                                                                                                much it is below the carrier's last
#                                                                                                one of the window that runs, bytes
#   UNREPORTED   ICCID               bytes                     UnreportedReason          terminal: what its lease may have used that
#                                                                                        ended without its last report
#   LIMIT        bytes used; from bit 48   limit, bytes              LimitReason               subscriber: a published limit; the
#                the rule (entity), 62:                                                        terminal and access server that
#                by the day                                                                    showed it, if any did
#   EXEMPT       until, ms           actor                     ExemptReason              subscriber: exempt from limits
#   SHORTFALL    market              headroom wanted, bytes    Priority                  market: a swap finds no target
#   SHORTFALL_OVER market            since, ms                 -                         market: one that wants as much does

cdef enum:
    EVENTS_PER_ITEM = 12          # at most, of a command's item, a timer, a sweep's item or an order


cdef inline EventRow *event(
    State *state, int kind, uint32_t terminal, uint32_t server, uint32_t job, int reason, uint64_t a, uint64_t b
) noexcept nogil:
    """One more event; its row, for what is not at hand here. ``terminal``: NONE_INDEX is none."""
    cdef EventRow *row = &state.events_out[state.events_out_count]
    invariant(state.events_out_count < state.events_out_max, "an apply gives no more events than there is room for")
    state.events_out_count += 1
    state.header.events_count += 1
    row.event = state.header.events_count
    row.terminal = 0
    row.subscriber = 0
    if terminal != NONE_INDEX:
        row.terminal = state.terminals[terminal].key
        row.subscriber = state.terminals[terminal].subscriber
    row.a = a
    row.b = b
    row.at_ms = state.header.now_ms
    row.job = job
    row.access_server = <uint16_t> server
    row.kind = <uint8_t> kind
    row.reason = <uint8_t> reason
    return row


cdef inline void order_event(State *state, int kind, uint32_t index, int reason, uint64_t b) noexcept nogil:
    """An event of a swap. Nothing is told of stops and revokes, nor of a switch that is nobody's swap any more."""
    cdef const Order *order = &state.orders[index]
    if order.kind == SWITCH and not order.orphaned:
        event(state, kind, order.terminal, order.server, order.job, reason, order.number, b)


cdef void job_enter(State *state, Job *job, int entered, int why) noexcept nogil:
    """The job's state changes, ``why``: JobWhy."""
    job.why = <uint8_t> why
    if job.state != <uint32_t> entered:
        job.state = entered
        event(state, EVENT_JOB, NONE_INDEX, NONE_SHORT, job.id, why, entered, job.beyond_count)
        if (entered == JOB_PAUSED or entered == JOB_AWAITING_APPROVAL) and state.header.settings[<int> AUTOMATIC_SWAPS]:
            automatic_later(state, state.header.now_ms)  # whose SIM turned meanwhile doesn't wait with it


cdef uint64_t sim_iccid(State *state, uint32_t sim) noexcept nogil:
    """0: none."""
    return state.sims[sim].iccid if sim != NONE_INDEX else 0


cdef void health_event(State *state, uint32_t sim, int health, uint64_t evidence) noexcept nogil:
    """A SIM's health is about to be another because somebody says so."""
    cdef const Sim *record = &state.sims[sim]
    if record.occupancy == ASSIGNED:
        event(
            state, EVENT_HEALTH, record.terminal, state.terminals[record.terminal].server, NONE_INDEX, health,
            record.iccid, evidence)
    else:
        event(state, EVENT_HEALTH, NONE_INDEX, NONE_SHORT, NONE_INDEX, health, record.iccid, evidence)
