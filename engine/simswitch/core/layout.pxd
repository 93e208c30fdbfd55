# What the state machine holds, record by record: the table of contents of the core.
#
# State is a list of flat memory regions (regions.pxi). Every region is hashed, written to snapshots and read
# back raw, so a record has no padding, no pointer and no float; records refer to each other by index.
#
#   region        bytes each   count                what stands in it
#   ----------    ----------   ------------------   ----------------------------------------------------
#   header              1088   1                    counters, settings, the clock, sweep queue positions
#   entities            1024   entities_count       suppliers, plans, lots, classes, markets, banks,
#                                                   access servers, actors: names, numbers, documents
#   sims                  64   sims_max             what an operation on a SIM touches
#   sims_cold             32   sims_max             what only imports, resets and reports touch
#   sims_rolling         128   sims_max             the days of a rolling window: nothing where no plan rolls
#   sims_ledger          128   sims_max             what counts beside our reports: nothing where there is nothing
#   sims_late             16   sims_max             what had been counted when a reset was held up: nothing where none was
#   terminals             64   terminals_max        what an operation on a terminal touches
#   ended_leases          48   65,536               leases whose terminal has another one, a ring: for their final reports
#   ended_places           2   65,536               where the last one stands, by the end of its epoch
#   terminals_cold        24   terminals_max        swap history, reconciliation mark
#   subscribers           24   terminals_max x 1.25 today and this month of each, in a table by key
#   exemptions            96   4,096                who is exempt from limits, by subscriber
#   orders                96   orders_max           queued and outstanding orders
#   groups              9792   groups_max           one selection index each: tiers, bitmaps, FIFO ends
#   classes            28944   classes_max          which groups have a SIM in which tier
#   markets              608   markets_max          classes in order of preference, what leases used
#   servers              632   servers_max          window, gate and queues of an access server
#   ready                  8   servers_max / 64     bit per access server that dispatch must look at
#   jobs                 512   jobs_max             swap jobs
#   check             265760   1                    supply and demand of the job that is being checked, or was last
#   breakers              40   as entities          where swaps fail beyond a budget
#   lots                1328   as entities          the caps of a lot's windows that are in force, their resets, and its pool
#   given_up              48   4,096                swaps that were given up: the operator's work list, a ring
#   sweeps                32   sweeps_max           ring of bounded work in progress
#   events                56   65,536               what happened last, a ring: who was told before a restart goes on after it
#   wheel               8392   1                    timing wheel: list heads and which are not empty
#   timers_*               8   terminals, orders, servers: the wheel's links, one node each (a SIM's stands in its record)
#   iccid_table, imsi_table, terminal_table: 4 a slot; load at most 0.9, 0.9 and 0.55 (tables.pxi)
#
# Per SIM: 64 + 32 + 2 x 4 / 0.9 (tables) = 105 B, 128 B in a plan with rolling days, and as many with a carrier's figures.
# Per terminal: 64 + 24 + 8 + 4 / 0.55 = 103 B.  Per subscriber: 24 x 1.25 = 30 B.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# The number of the machine that is asserted on replay: any change to what a command does raises it.
cpdef enum:
    MACHINE_VERSION = 18

cdef enum:
    NONE_INDEX = 0xFFFFFFFF      # "no such index"; index 0 is an ordinary index (layout.pyx gives it to Python)

cdef enum:
    LAST_SIM = 0x80000000        # instead of a terminal's order, once its lease has ended: + the SIM of that lease
    AWAITS_TRAFFIC = 0xFFFFFFFE  # instead of a terminal's order: its swap is confirmed and no traffic was reported since

cdef extern from *:
    """
    #define SIMSWITCH_BYTES_MAX ((int64_t) 1 << 62)
    #define SIMSWITCH_INSTANT_MAX_MS ((uint64_t) 1 << 43)
    #define SIMSWITCH_OPENING_MAX ((uint64_t) 1 << 48)
    #define SIMSWITCH_POOL_MAX ((int64_t) 1 << 61)
    """
    const uint64_t INSTANT_MAX_MS "SIMSWITCH_INSTANT_MAX_MS"   # every instant is before it
    const int64_t BYTES_MAX "SIMSWITCH_BYTES_MAX"   # every count and quota is below it, so that no sum of two overflows
    const uint64_t OPENING_MAX "SIMSWITCH_OPENING_MAX"   # what a SIM may have used when it is imported: some 31 days at full speed
    const int64_t POOL_MAX "SIMSWITCH_POOL_MAX"   # of a pool: what openings, figures of its SIMs and those of days may come to, each

cpdef enum:
    NONE_SHORT = 0xFFFF          # the same for 16-bit numbers
    TIERS = 128                  # 32 powers of two of MiB, 4 steps in each
    TIER_NONE = 255              # the SIM is not in the selection index
    RANKS = 64                   # ends of lots that a class tells apart: those that come first
    LEASE_ARMED = 128            # beside a terminal's tier: its timer is on the wheel, whatever became of the lease since
    GROUP_WORDS = 16             # 64-bit words over the groups of a class
    GROUPS_PER_CLASS = 1024      # 64 * GROUP_WORDS
    RECENT = 16                  # ring of the last SIMs pushed into a tier of a group, for prefetch hints
    HINT_DISTANCE = 16           # how far ahead a hint points
    OWN_TIER_TRIES = 8           # SIMs of the request's own tier that are tried
    EVENTS_KEPT = 65536          # events that are remembered: a power of two
    ENDED_MAX = 65536            # leases that are over and whose terminal has another one: a power of two, of 16 bits
    ENDED_TRIES = 16             # of these that are looked at for one
    TICK_SHIFT = 6               # the wheel turns once in 64 ms
    MARKET_CLASSES = 12
    WORK_MAX = 4096              # items that sweeps, timers and dispatch may each touch in one apply
    WINDOW_MAX = 200             # I3. No setting, job or policy changes it.
    WINDOW_START = 20
    PRIORITIES = 5
    LANES = 8                    # of a priority: jobs take turns
    ADMISSION_LANES = 3          # by subscriber priority
    GIVEN_UP_MAX = 4096          # swaps on the operator's work list
    EXEMPTIONS_MAX = 4096        # that have not ended
    SAMPLES_MAX = 64             # terminals that a check names, by the reason why they would go without
    RUN_ITEMS_MAX = 65536        # items in one run of commands
    NAME_BYTES = 64
    DOCUMENT_BYTES = 824
    WINDOWS = 3
    ROLLING_DAYS = 14            # a longer rolling window counts in steps of several days
    ROLLING_DAYS_MAX = 366

cpdef enum Occupancy:
    FREE = 1
    RESERVED = 2                 # target of a swap that is ordered
    ASSIGNED = 3
    COOLING = 4                  # released; not yet reusable, or its access server has not yet let go of it

cpdef enum Health:
    HEALTHY = 1
    LOW = 2                      # below the low watermark, by our count
    EXHAUSTED = 3                # below the exhausted watermark, by our count
    THROTTLED = 4                # slowed by the carrier, observed
    SUSPENDED = 5                # at the carrier
    UNREACHABLE = 6              # its bank
    MISSING = 7
    QUARANTINED = 8
    RETIRED = 9                  # final

# What a carrier does to a SIM of ours.
cpdef enum CarrierLife:
    LIFE_ACTIVE = 1              # it works, for the first time or again
    LIFE_SUSPENDED = 2
    LIFE_TERMINATED = 3          # final

# What a cap counts over. Its place in the arrays of a lot is one less.
cpdef enum Window:
    WINDOW_CYCLE = 1
    WINDOW_DAY = 2
    WINDOW_ROLLING = 3

# Of carriers' figures only: what was used on a single day of the rolling window.
cpdef enum:
    ROLLING_DAY = 4

# How well a cap is known.
cpdef enum Basis:
    BASIS_CONTRACTUAL = 1
    BASIS_BELIEVED = 2
    BASIS_LEARNED = 3

# How a carrier's cap was seen to have changed.
cpdef enum CapShift:
    CAP_LOWERED = 1
    CAP_RAISED = 2
    CAP_SPEED = 3                # the same cap, another speed after it

cpdef enum EntityKind:
    SUPPLIER = 1
    PLAN = 2
    LOT = 3
    SIM_CLASS = 4
    MARKET = 5
    BANK = 6
    ACCESS_SERVER = 7
    ACTOR = 8
    CARRIER = 9
    SUBSCRIBER_GROUP = 10
    LIMIT_RULE = 11              # what a subscriber may use, as published (limits.pxi)

cpdef enum Role:
    OPERATOR = 1
    ROLE_ACCESS_SERVER = 2
    ROLE_SUPPLIER = 3
    TECHNOLOGY_PROVIDER = 4
    AUDITOR = 5
    SYSTEM = 6                   # the cell itself: ticks, restart, growth
    LEARNER = 7                  # the program that learns caps: it says what was observed, and nothing else

# What stands in Entity.numbers, by kind. -1 means none / unlimited unless said otherwise.
cpdef enum:
    # plan: quotas in bytes (-1: this window has no cap), watermarks in bytes
    PLAN_QUOTA_CYCLE = 0
    PLAN_QUOTA_DAY = 1
    PLAN_QUOTA_ROLLING = 2
    PLAN_ROLLING_DAYS = 3
    PLAN_LOW_BYTES = 4           # headroom below which a SIM is low; -1: the setting
    PLAN_EXHAUSTED_BYTES = 5     # headroom below which a SIM is exhausted; -1: the setting
    PLAN_CHANGES_PER_DAY = 6     # changes of terminal of one SIM in a day; -1 or 0: any number
    PLAN_POOLED = 7              # a bit per window, as in Lot.pooled: the SIMs of a lot share its quota; -1 or 0: each has its own
    PLAN_SPEED_CYCLE_KBPS = 8    # speed above the quota of each window; -1: not known, or none
    PLAN_SPEED_DAY_KBPS = 9
    PLAN_SPEED_ROLLING_KBPS = 10
    PLAN_BASIS_CYCLE = 11        # Basis of each quota; -1: believed
    PLAN_BASIS_DAY = 12
    PLAN_BASIS_ROLLING = 13
    # lot
    LOT_SUPPLIER = 0             # entity indexes
    LOT_PLAN = 1
    LOT_CLASS = 2
    LOT_CHECK_DIGIT_EXEMPT = 3   # 1: the issuer's check digits deviate (checked at import, outside the core)
    LOT_ACTIVE_FROM_S = 4        # its SIMs work from this instant, Unix seconds; -1: they do
    LOT_VALID_UNTIL_S = 5        # and until this one; -1: no end is known
    LOT_PREPAID = 6              # 1: a quota that ends with the lot; -1: it does not, or nobody said
    # class
    CLASS_RESERVE = 0            # free healthy SIMs that swaps never touch (I7); -1 is 0
    CLASS_CARRIER = 1            # entity index; -1: not told
    # subscriber group
    GROUP_PRIORITY = 0           # 1 first, 2, 3 last when not all can be admitted at once
    # limit rule
    RULE_GROUP = 0               # entity index of the subscriber group that it is for; -1: all that have no rule of their own
    RULE_MONTH_BYTES = 1         # what may be used in a month; -1: any amount. One of the two must be said
    RULE_DAY_BYTES = 2           # and in a day
    RULE_WARN_PERMILLE = 3       # share of the limit at which is warned, in thousandths; -1 or 0: it is not
    RULE_ACTION = 4              # LimitAction
    RULE_SLOW_KBPS = 5           # slow: to what speed
    RULE_TEXT_BYTES = 6          # length of the published text, which stands in the document: at least 1
    RULE_PUBLISHED_DAY = 7       # when it was published: days since 1970-01-01 of the local date, not after today
    RULE_WITHDRAWN = 8           # 1: it holds no more
    # market
    MARKET_EXPECTED_BYTES = 0    # expected use of a lease; -1: what is learned from those that are over (expected.pxi)
    MARKET_FIRST_CLASS = 1       # entity indexes of up to MARKET_CLASSES classes, in order of preference
    # access server, bank, supplier, carrier: none
    # actor
    ACTOR_ROLE = 0
    ACTOR_SUBJECT = 1            # entity index of its access server or supplier; -1: not bound to one

cpdef enum Command:
    TICK = 1                     # nothing but time
    DEFINE = 2
    IMPORT_SIMS = 3
    ADOPT = 4
    SET_HEALTH = 5
    CONFIGURE = 6
    GROW = 7
    RESTART = 8                  # the service started again: sessions are closed, expiry waits (fail static); argument 1: the first
                                 # command of a restored folder
    FREEZE = 9                   # the clock jumped: expiry and resets wait until THAW
    THAW = 10
    MASK = 12
    CAP_CHANGED = 13             # a carrier was seen to keep another cap than before: told, nothing is set
    ALLOCATE = 20
    RENEW = 21
    RELEASE = 22
    REPORT_USAGE = 23
    REPORT_ATTACH_FAILURE = 24
    SESSION_OPEN = 30
    SESSION_HOLDS = 31
    SESSION_READY = 32
    SESSION_CLOSE = 33
    ACKNOWLEDGE = 34
    REPORT_LOAD = 35
    JOB_CREATE = 40
    JOB_ADD = 41
    JOB_PAUSE = 42
    JOB_RESUME = 43
    JOB_CANCEL = 44
    SWAPS_STOP = 45
    SWAPS_LIFT = 46
    JOB_APPROVE = 47
    GIVEN_UP_RESOLVE = 48
    DECLARE_DEAD = 49
    SET_CAP = 50
    CARRIER_USAGE = 51           # what a carrier says was used in a window of a SIM, up to an instant (ledger.pxi)
    SCHEDULE = 52
    SERVER_PAUSE = 58            # no order is sent to the access server until SERVER_RESUME; nothing is recalled
    SERVER_RESUME = 59
    EXEMPT = 55                  # no limit holds for a subscriber up to an instant, or holds again
    CARRIER_LIFE = 66            # a carrier has suspended, activated or terminated a SIM, and why
    POOL_USAGE = 70              # what a carrier says was used in a window of all SIMs of a lot that share it (pools.pxi)

# Per-item results, in order of precedence within each block: the first that applies is given.
cpdef enum Status:
    OK = 1
    SAME = 2                     # nothing to do: the same lease, the same definition, the same SIM
    MOVED = 3                    # a re-allocation: the terminal got another SIM, its old one is cooling
    LATE = 4                     # a duplicate or late report or acknowledgement: nothing changed (I8)
    SETTLED = 5                  # reconciliation settled an outstanding order
    REVOKED = 6                  # reconciliation: the access server must let go of this SIM; an order follows
    ENDED = 7                    # a report of a lease of the terminal that is over: counted
    NOT_PERMITTED = 20
    INVALID_ARGUMENT = 21
    UNKNOWN_ACCESS_SERVER = 22
    UNKNOWN_MARKET = 23
    UNKNOWN_LOT = 24
    UNKNOWN_BANK = 25
    UNKNOWN_ENTITY = 26
    UNKNOWN_TERMINAL = 27
    UNKNOWN_SIM = 28
    UNKNOWN_ORDER = 29
    UNKNOWN_JOB = 30
    STALE_SESSION = 31
    STALE_EPOCH = 32
    NO_LEASE = 33
    SIM_IN_USE = 34              # adopt: the SIM is held by another terminal (I1)
    TERMINAL_IN_USE = 35         # adopt: the terminal holds another SIM (I2)
    WRONG_STATE = 36             # the job is finished, the SIM retired …
    ICCID_DIFFERS = 37           # the ICCID exists with other data
    DUPLICATE_IMSI = 38
    IMPOSSIBLE_USAGE = 39        # a cumulative figure, or a carrier's, that no line could carry; or less than it said itself: set aside
    NO_HEALTHY_SIM = 40
    TERMINALS_FULL = 41
    SIMS_FULL = 42
    ORDERS_FULL = 43
    JOBS_FULL = 44
    ENTITIES_FULL = 45
    GROUPS_FULL = 46
    SWEEPS_FULL = 47
    SECOND_PERSON = 48           # who ordered the job can't approve it
    RESTING = 49                 # in its cool-down
    DAY_CEILING = 50             # swapped as often today as a terminal may be
    ADMISSION_WAIT = 51          # more ask at its access server than it can attach
    LIMIT_REACHED = 52           # its subscriber has used what the published limit allows
    PAST_WINDOW = 53             # a carrier's figure of before its window had begun at all SIMs of the lot: set aside
    COUNT_UNKNOWN = 54           # what we had counted by the instant of a carrier's figure (the service says so, not the core)
    NEGATIVE_USAGE = 57          # a carrier's figure below nothing: set aside
    FUTURE_USAGE = 58            # a carrier's figure of an instant to come: set aside
    CAP_WAITS = 59               # another cap of the window waits for its instant already
    NO_WINDOW = 60               # a carrier's figure of a window that its lot has not: set aside
    HELLOS_AWAITED = 61          # the folder was restored, and not all access servers have said since what they hold

cpdef enum OrderKind:
    SWITCH = 1
    STOP = 2                     # the terminal was given another SIM elsewhere; let go of this one
    REVOKE = 3                   # the lease ended; let go
    WITHDRAW = 4                 # instead of asking for a switch again: do not begin it any more. No order of its own

cpdef enum OrderState:
    ORDER_UNUSED = 0             # on the free list
    QUEUED = 1
    WAITING = 2                  # refused; to be tried again at not_before_ms
    OUTSTANDING = 3              # sent: counts against the window until settled (I3)
    UNKNOWN = 4                  # past its deadline: holds source, target and place until settled (I9)
    PARKED = 5                   # its job is paused, or not begun
    ANNOUNCED = 6                # told to whom it concerns; waits for not_before_ms

cpdef enum Acknowledgement:
    ACK_DONE = 1
    ACK_REFUSED = 2              # refused in so many words: the terminal is as it was
    ACK_BUSY = 3                 # not carried out, the access server is busy: the gate backs off

cpdef enum Priority:
    # of queued orders; a new allocation never queues, so it stands above all of these
    PRIORITY_STOP = 0            # stop and revoke: they free SIMs
    PRIORITY_FAILURE = 1         # re-allocation after failure
    PRIORITY_THROTTLED = 2
    PRIORITY_PREDICTED = 3
    PRIORITY_REBALANCE = 4

cpdef enum Gate:
    GATE_DISCONNECTED = 1
    GATE_OPEN = 2
    GATE_BACK_OFF = 3
    GATE_PROBING = 4
    GATE_PAUSED = 5
    GATE_DEAD = 6                # an operator says that it will not come back

cpdef enum WindowReason:
    WINDOW_INITIAL = 1
    WINDOW_CLEAN = 2             # grew after a clean window
    WINDOW_BUSY = 3
    WINDOW_DEADLINE = 4
    WINDOW_PROBED = 7            # ramp after a back-off
    WINDOW_ALLOCATIONS = 8       # allocations on it waited too long
    WINDOW_STORM = 9             # ramp after more had asked at once than it could attach

cpdef enum GateReason:
    GATE_BY_SESSION = 1          # its session began or ended
    GATE_BY_READY = 2            # it has told what it holds
    GATE_BY_BUSY = 3
    GATE_BY_DEADLINE = 4         # a probe was not acknowledged in time
    GATE_BY_PROBE = 5            # the back-off is over: one order is to show how it is
    GATE_BY_PROBED = 6           # and showed it
    GATE_BY_OPERATOR = 7
    GATE_BY_LIFE = 8             # it was declared dead and gave a sign of life
    GATE_BY_FAILURES = 9         # too many swaps on it failed: its breaker is open

cpdef enum Unheard:
    # of an access server, since the folder was restored
    HEARD = 0                    # it has said what it holds, is dead, or nothing was restored
    UNHEARD = 1                  # nobody knows what it was given after the backup
    UNHEARD_DEAD = 2             # it was declared dead since: when what it held is freed, no more is waited for it

cpdef enum WaitsFor:
    WAITS_FOR_NOTHING = 0
    WAITS_FOR_WINDOW = 1
    WAITS_FOR_QUEUE = 2          # until less stands before an order at the access server
    WAITS_FOR_GATE = 3
    WAITS_FOR_PACE = 4
    WAITS_FOR_TARGET = 5         # no SIM to be had
    WAITS_FOR_STOP = 6           # swaps are stopped
    WAITS_FOR_JOB = 7            # its job's canary, rate or announcement
    WAITS_FOR_HELLOS = 8         # the folder was restored, and not all access servers have said since what they hold

cpdef enum JobState:
    JOB_UNUSED = 0
    JOB_SELECTING = 1
    JOB_RUNNING = 2
    JOB_PAUSED = 3
    JOB_CANCELLED = 4
    JOB_DONE = 5
    JOB_CHECKING = 6             # whether there is a target for everybody, and by when it would be over
    JOB_CHECKED = 7              # that was all that was wanted: a dry run
    JOB_REFUSED = 8              # it would leave somebody without, or be late
    JOB_AWAITING_APPROVAL = 9    # so many terminals need a second person

# Why a job is paused, refused or cancelled, or done with some left out.
cpdef enum JobWhy:
    WHY_NONE = 0
    WHY_OPERATOR = 1
    WHY_CANARY = 2               # too many of its first swaps failed
    WHY_BUDGET = 3               # too many of its swaps failed
    WHY_TARGETS = 4              # not every terminal would get a target
    WHY_LATE = 5                 # it would be over after its deadline
    WHY_QUIET = 6                # its quiet hours
    WHY_SIZE = 7                 # done, and more came under its filter than its check had found

# What a job does when its check says that somebody would go without or that it would be late.
cpdef enum Infeasible:
    INFEASIBLE_REFUSE = 1
    INFEASIBLE_PROCEED = 2
    INFEASIBLE_PAUSE = 3

# Why a terminal that a job selects would not be moved.
cpdef enum Without:
    WITHOUT_TARGET = 0           # no SIM in its market that swaps may take has its expected use left
    WITHOUT_SWAP = 1             # it is in another swap
    WITHOUT_REST = 2             # it is in its cool-down
    WITHOUT_SERVER = 3           # its access server has no session, or is paused
    WITHOUT_CEILING = 4          # it was swapped as often today as a terminal may be
    WITHOUTS = 5

# What an event tells of (events.pxi says what its a, b and reason are).
cpdef enum EventKind:
    EVENT_ANNOUNCED = 1
    EVENT_WITHDRAWN = 2
    EVENT_ORDERED = 3
    EVENT_REFUSED = 4
    EVENT_OVERDUE = 5
    EVENT_CONFIRMED = 6
    EVENT_TRAFFIC = 7
    EVENT_UNMEASURED = 8
    EVENT_GIVEN_UP = 9
    EVENT_DIFFERENCE = 10
    EVENT_JOB = 11
    EVENT_SHORTFALL = 12
    EVENT_SHORTFALL_OVER = 13
    EVENT_DEATH = 14
    EVENT_BREAKER = 15
    EVENT_HEALTH = 18
    EVENT_CAP = 19
    EVENT_RESET = 20
    EVENT_TRUSTED = 23
    EVENT_LIMIT = 17
    EVENT_EXEMPT = 22
    EVENT_PAUSE = 24
    EVENT_CAP_CHANGED = 29
    EVENT_VALIDITY = 25
    EVENT_SET_ASIDE = 16
    EVENT_CORRECTION = 21
    EVENT_UNREPORTED = 30
    EVENT_POOL = 31
    EVENT_POOL_CORRECTED = 35
    EVENT_POOL_ASIDE = 36
    EVENT_ENDLESS = 39

# What an EVENT_UNREPORTED tells.
cpdef enum UnreportedReason:
    UNREPORTED_ALLOWED = 1       # it counts from now on
    UNREPORTED_OVER = 2          # so much was reported, or it is known that no more was used, or the lease goes on

# Because of what a SIM that cools is not freed by time.
cpdef enum Held:
    HELD_COUNTED = 1             # its terminal went on without it: few of these a terminal
    HELD_UNCOUNTED = 2           # an access server named it that should not have it, or its terminal's count is full

# Whether a lot's SIMs work, by its dates.
cpdef enum Validity:
    VALID = 0
    NOT_YET_VALID = 1
    NO_LONGER_VALID = 2

cpdef enum BreakerState:
    BREAKER_CLOSED = 0
    BREAKER_OPEN = 1
    BREAKER_HALF_OPEN = 2        # one swap may try
    BREAKER_PROBING = 3          # and is out

cpdef enum ConfirmedBy:
    BY_ACKNOWLEDGEMENT = 1
    BY_TRAFFIC = 2
    BY_RECONCILIATION = 3
    BY_ATTACH_FAILURE = 4        # the terminal was moved, and the target would not attach

# Why a swap that was ordered will not be confirmed.
cpdef enum WithdrawnBy:
    LEASE_OVER = 1               # the terminal's lease ended or went elsewhere: the order is orphaned
    NOT_HELD = 2                 # the access server said hello and holds neither SIM
    JOB_OVER = 3                 # the job was cancelled before it could be tried again, or its terminal taken out of it
    JOB_HELD = 4                 # the job was paused after it was announced
    PROMISE_BROKEN = 5           # it could not be sent at its instant, nor soon after: it is announced anew

# What became of an access server that was declared dead.
cpdef enum Death:
    DEATH_DECLARED = 1
    DEATH_UNDONE = 2             # by an operator
    DEATH_BELIED = 3             # it gave a sign of life in time
    DEATH_SETTLED = 4            # what it held is freed

# What follows when a subscriber has used what a limit allows.
cpdef enum LimitAction:
    ACTION_NOTIFY = 1            # it is told of, and that is all
    ACTION_SLOW = 2              # its access server is to slow it, in a lease that it has too
    ACTION_REFUSE = 3            # no lease, nor any longer than the one it has runs

# What an EVENT_LIMIT tells.
cpdef enum LimitReason:
    LIMIT_WARNED = 1             # the share at which is warned is used
    LIMIT_PASSED = 2             # all of it is: notify
    LIMIT_SLOWED = 3             # slow
    LIMIT_REFUSED = 4            # refuse
    LIMIT_LIFTED = 5             # none of these three holds any more

# What an EVENT_EXEMPT tells.
cpdef enum ExemptReason:
    EXEMPT_BEGUN = 1             # or its end or reason is another from now on
    EXEMPT_ENDED = 2             # before its end, by whoever says so

cpdef enum SweepKind:
    SWEEP_UNUSED = 0             # 2 was a reset's
    SWEEP_JOB_SELECT = 1
    SWEEP_LIMITS = 3
    SWEEP_RECONCILE = 4
    SWEEP_JOB_CANCEL = 5
    SWEEP_JOB_RESUME = 6
    SWEEP_JOB_CHECK = 7
    SWEEP_AUTOMATIC = 8
    SWEEP_SUBSCRIBERS = 9

cpdef enum Setting:
    LEASE_MS = 1
    COOLING_MS = 2
    EXPECTED_FLOOR_BYTES = 3     # expected use is never below this
    LOW_BYTES = 4
    EXHAUSTED_BYTES = 5
    ORDER_DEADLINE_MS = 6
    ATTEMPTS_MAX = 7             # refusals of one swap before it is given up
    SWAP_COOL_DOWN_MS = 8        # a terminal is not swapped again within this
    RETRY_AFTER_MS = 9           # base of the advice to a refused allocation; full jitter is added
    LINE_BYTES_PER_S = 10        # what a terminal's radio can carry: more than that over a lease is impossible
    OUTAGE_MAX_MS = 11           # traffic that is first reported later than this after its swap measures no outage
    QUEUE_BUDGET_US = 12         # an order is sent while what stands before it takes less than this
    ALLOCATION_TARGET_MS = 13    # how long an allocation may wait on an access server
    APPROVAL_ABOVE = 14          # who moves more terminals by jobs in a day needs a second person
    IDLE_MS = 15                 # a terminal without new bytes for so long is idle
    UNKNOWN_ASK_MS = 16          # how often an access server is asked what became of an order that it did not answer
    AUTOMATIC_SWAPS = 17         # without a job: 1 off SIMs that turn low · 2 off those that are spent, slow or dead · 3 both
    AUTOMATIC_AHEAD_MS = 18      # how long ahead those off low SIMs are announced
    SWAPS_PER_DAY_MAX = 19       # of one terminal
    DAY_BEGINS_MS = 20           # local midnight, after midnight UTC
    FENCING_MS = 21              # from declaring an access server dead until what it held is freed
    BREAKER_PPM = 22             # failed swaps of all at which a breaker opens; 1,000,000: never
    BREAKER_MS = 23              # how long it stays open at first
    BREAKER_LEAST = 24           # swaps from which is judged
    PROBE_KBPS = 26              # goodput at which a SIM that was slowed before its reset is trusted again; 0: it stays slowed
    EXPECTED_CEILING_BYTES = 29  # expected use that is learned is never above this
    ADMISSION_QUEUE_MS = 25      # how much work for it an access server's queue may hold before terminals are told to wait; 0: any

# ---------------------------------------------------------------------------------------------- records

ctypedef struct Header:                 # 1088 B
    uint64_t sequence                   # records applied
    uint64_t now_ms                     # the instant of the last apply, Unix milliseconds
    uint64_t seed                       # of the last apply; jitter is drawn from it and draws_count
    uint64_t draws_count
    uint64_t grace_until_ms             # after RESTART: unreconciled servers' leases don't expire before
    uint64_t epoch_next                 # counter part of lease epochs
    uint64_t rest_next                  # order in which SIMs became free
    uint64_t order_next                 # counter part of order numbers
    uint64_t counted_bytes              # I8: sum of all accepted reports
    uint64_t impossible_count           # reports set aside because no line could carry as much
    uint64_t timer_tick                 # wheel position, in TICK_MS
    uint32_t incarnation                # upper 16 bits of every epoch; restore and promotion raise it
    uint8_t frozen                      # 1: the clock jumped
    uint8_t swaps_stopped               # 1: 'swap stop --all'
    uint16_t unheard_count              # access servers that are not HEARD since the folder was restored
    uint32_t lineage                    # drawn by a restore: the upper half of every session's number; 0: nothing was restored
    uint32_t entities_count
    uint32_t entities_max
    uint32_t sims_count
    uint32_t sims_max
    uint32_t terminals_count
    uint32_t terminals_max
    uint32_t orders_max
    uint32_t orders_free                # head of the free list through Order.next
    uint32_t orders_used
    uint32_t groups_count
    uint32_t groups_max
    uint32_t classes_count
    uint32_t classes_max
    uint32_t servers_count
    uint32_t servers_max
    uint32_t jobs_count                 # the id of the next job, if its slot is free; a restore leaps
    uint32_t jobs_max
    uint32_t sweeps_head                # ring of sweeps: first and count
    uint32_t sweeps_count
    uint32_t session_next
    uint32_t machine_version
    int64_t settings[48]                # by Setting
    uint64_t occupancy_count[8]         # SIMs by Occupancy
    uint64_t health_count[10]           # SIMs by Health
    uint32_t markets_count
    uint32_t markets_max
    uint32_t sweep_next                 # id of the next sweep
    uint32_t dispatch_next              # access server at which dispatch goes on
    uint64_t thaw_until_ms              # after THAW no lease expires before: the clock leapt, the leases did not
    uint64_t events_count               # events ever given: the number of the last one
    uint64_t jobs_due_ms                # when jobs want to be looked at; 0: none does
    uint64_t given_up_count             # ever: the number of the last entry of the work list
    uint64_t automatic_due_ms           # when SIMs are looked through for automatic swaps; 0: no need
    uint64_t day                        # the day of now_ms, counted from DAY_BEGINS_MS
    uint64_t breakers_due_ms            # when the next open breaker may be tried; 0: none is open
    uint32_t breakers_blocking          # open or with their probe out, access servers' not counted
    uint32_t breakers_tried             # half open, access servers' not counted
    uint32_t rolling_end                # SIMs from this one on have no rolling window
    uint32_t ledger_end                 # SIMs from this one on have nothing in their ledger
    uint64_t attaches_until_ms          # till then leases that begin count at breakers: an attach failed lately; 0: none did
    uint64_t attaches_epoch             # the first of these leases
    uint64_t set_aside_count            # reports set aside because nobody knows the terminal, or its lease is another
    uint64_t set_aside_bytes            # what they said, saturated; one that came twice stands in it twice
    uint64_t stamp                      # month and day of the month of the local date (subscribers.pxi); 0: to be worked out
    uint64_t subscribers_count
    uint64_t subscribers_missed         # reports that were counted at no subscriber, because the table was full
    uint32_t lots_due_first             # lots that have work to do now, a list through due_next; 0: none
    uint32_t lots_due_last
    uint32_t limit_for_all              # the rule for whom no group's holds; 0: there is none
    uint32_t limits_count               # rules that hold
    uint32_t exemptions_count
    uint32_t revokes_count              # orders for SIMs that access servers named and should not have
    uint64_t given_up_lost              # entries of the work list that made room before anybody had resolved them
    uint64_t corrections_count          # carriers' figures that were taken
    uint64_t figures_aside_count        # and those that were set aside
    uint64_t bounds_cursor              # the next group, + 1, of the walk that works out Market.bound_bytes; 0: there is no need
    uint64_t unreported_count           # leases that may have used what nobody has reported to this day (ledger.pxi)
    uint64_t unreported_bytes           # how much that may be
    uint64_t ended_count                # leases that were ever remembered in the ring of those that have ended
    uint16_t limits_group[16]           # whose rule became another, or acts otherwise, by the edition modulo 16; 0: that for all
    uint16_t limits_before[16]          # and the rule that held before; 0: none did
    uint32_t limits_edition             # how often that was, ever (limits.pxi)
    uint32_t limits_settled             # all who were told of a limit have heard of the changes up to this edition
    uint64_t reports_awaited            # SIMs that cool, of whose lease the last report has not come (ledger.pxi)
    uint64_t events_leapt               # numbers of events that were never given: restores have leapt over them
    uint64_t answers_until_ms           # after RESTART, FREEZE and a THAW that ends one, no order is overdue before: nobody could answer
    uint32_t frozen_s                   # when the clock jumped last, Unix seconds
    uint32_t late_end                   # SIMs from this one on have nothing in sims_late
    uint64_t reserved[6]

ctypedef struct Subscriber:             # 24 B
    uint64_t key                        # 0: empty
    uint64_t month                      # bytes of the month, the group, what was told of the month's limit
    uint64_t day                        # bytes of the day, which day that is, what was told of its limit (subscribers.pxi)

ctypedef struct Exemption:              # 96 B, in the order of subscribers
    uint64_t subscriber
    uint64_t since_ms
    uint64_t until_ms                   # exclusive; it may have passed: the place is taken when there is no other
    uint32_t actor                      # who said so
    uint32_t reserved
    char reason[64]                     # UTF-8, zero-filled

ctypedef struct Entity:                 # 1024 B
    int64_t numbers[16]
    char name[64]                       # UTF-8, zero-filled
    uint8_t kind
    uint8_t masked                      # lot, bank: 1: none of its SIMs is selected
    uint8_t reserved[2]
    uint16_t dense                      # number among its kind (class, market, access server); of a subscriber group its limit
                                        # rule, while it has one; NONE_SHORT otherwise
    uint16_t document_size
    uint8_t document[824]               # descriptive terms as the service wrote them; opaque here

ctypedef struct Sim:                    # 64 B, one cache line
    uint64_t iccid                      # digits after the leading 89, times 2, plus 1 if the ICCID has 20 digits
    uint64_t counted_bytes              # accepted reports, over the lifetime (I8)
    int64_t limit_bytes                 # counted_bytes at which the nearest cap is reached: headroom = limit - counted
    uint64_t rest_sequence              # when it became free, in the order of all; ranks it inside its tier. Of a pooled lot, while it
                                        # is reserved, assigned or held: what its lease may still use (pools.pxi)
    uint64_t cooling                    # bits 0 to 43: until when it cools, ms; 44 to 54: a day's number; 55: it was slowed before
                                        # its reset, and is not trusted yet; 56 to 63: changes of terminal in that day
    uint32_t terminal                   # holder, or the last one; NONE_INDEX: never held
    uint32_t next                       # neighbours in its tier, while it is in the selection index (the head's previous is
    uint32_t previous                   # stale), or on the wheel, while it cools. While held: next is the order that holds it. While
                                        # assigned: next is when new bytes were reported last, or the lease began, Unix seconds.
                                        # While assigned or held: previous is when a report was taken last, also one that nothing
                                        # more was used, or the lease began; NONE_INDEX: nobody knows
    uint32_t hint                       # prefetch only: a SIM about HINT_DISTANCE places behind it in either list
    uint16_t group
    uint16_t slot
    uint8_t tier                        # TIER_NONE: not in the selection index
    uint8_t occupancy
    uint8_t health
    uint8_t held                        # cooling and its access server has not yet let go: not freed by time (Held; 0: no)

ctypedef struct SimCold:                # 32 B
    uint64_t identity                   # bits 0 to 49: the IMSI; 50 to 52, by window: it has begun anew, and the walk of the reset that is under
                                        # way has yet to come to it (lots.pxi)
    int64_t offset_cycle_bytes          # used in a window = counted_bytes + offset: opening balance, resets
    int64_t offset_day_bytes
    uint32_t health_since_s             # Unix seconds
    uint32_t revoke                     # order + 1 that takes it from a server that should not have it; 0: none

ctypedef struct SimRolling:             # 128 B, two cache lines
    int64_t offset_bytes                # as of the other windows, without the days of the ring: counted_bytes + this is today's
    uint32_t days[14]                   # what was used on the days before today, the last one first, in 4 KiB; bit 31: its
                                        # carrier said so
    uint32_t own[14]                    # of those that it said: what we had counted on them, which is in the cycle; else 0
    uint32_t reserved[2]

ctypedef struct SimLedger:              # 128 B, two cache lines; the windows of arrays as in Window, less one
    int64_t correction_bytes[3]         # what the carrier's last figure moved the window's offset by; a reset clears it
    int64_t allowance_bytes[3]          # what leases may have used that ended without their last report; a reset clears it
    int64_t straddling_bytes[3]         # taken to be used before the figure's instant, and may have been after it; a reset clears it
    int64_t carrier_bytes[3]            # the carrier's last figure
    uint64_t unreported_epoch           # the last of these leases; 0: there is none, or it was reported since
    int64_t unreported_bytes            # bits 0 to 50: what is left of what was allowed for it; 51 to 62: what was told as left (ledger.pxi);
                                        # below 0: what will be allowed for when the SIM has cooled
    uint32_t as_of_s[3]                 # up to when the carrier's figure counts, Unix seconds; 0: none was told
    uint32_t unreported_s               # when the last of these leases ended, or was reported last since

ctypedef struct SimLate:                # 16 B
    int64_t counted_bytes               # what had been counted on the SIM before the first report that may be of windows which begin later, less
                                        # what it had used by an import
    uint32_t at_s                       # when the last such report came, Unix seconds; 0: none has
    uint32_t allowed_s                  # when the last lease had ended of which something was allowed for since

ctypedef struct Terminal:               # 64 B, one cache line
    uint64_t key                        # chosen by the access server: IMEI and modem
    uint64_t subscriber
    uint64_t epoch                      # of the current lease (fencing); 0: never had one
    uint64_t expires_ms                 # lazily re-armed: the timer may fire earlier and find this later. Without a lease: when it
                                        # was told to come back (admission.pxi); 0: it was not
    uint64_t reported_bytes             # cumulative, of this epoch
    uint64_t counted_bytes              # accepted reports, over the lifetime (I8)
    uint32_t sim                        # NONE_INDEX: no lease
    uint32_t order                      # its swap, queued or ordered; NONE_INDEX: none; AWAITS_TRAFFIC; or LAST_SIM and a SIM
    uint32_t reported_s                 # up to when a line at its limit is busy with what was reported since the lease began: what it
                                        # could have carried from then on is still to come. Unix seconds
    uint16_t server                     # access server: index into servers
    uint8_t market                      # index into markets
    uint8_t expected_tier               # tier from which every SIM has the expected use left; + LEASE_ARMED

ctypedef struct EndedLease:             # 48 B: a lease that is over, for its final report
    uint64_t epoch                      # 0: an empty place
    uint64_t subscriber
    uint64_t reported_bytes             # as Terminal's, when it ended or was reported last
    uint32_t terminal
    uint32_t sim
    uint32_t reported_s
    uint16_t server
    uint8_t expected_tier
    uint8_t reserved
    uint16_t before                     # place of the one before it whose epoch ends alike (leases.pxi)
    uint8_t later[6]

ctypedef struct TerminalCold:           # 24 B
    uint64_t swapped_ms                 # last swap that was confirmed, or given up and of no job; 0: never
    uint32_t to_confirm_ms              # from its order to its confirmation, saturated
    uint32_t swap_job                   # the job that it was of; NONE_INDEX: none
    uint32_t session                    # last session whose hello named it
    uint16_t swaps_count                # confirmed ones, saturated
    uint8_t swaps_today                 # on the day of swapped_ms, saturated
    uint8_t held_count                  # SIMs that are HELD_COUNTED because of it, until some access server lets go

ctypedef struct Order:                  # 96 B
    uint64_t number                     # what the access server sees; 0: none yet
    uint64_t epoch                      # of the target's lease (switch), or of the lease to end
    uint64_t ordered_ms
    uint64_t deadline_ms
    uint64_t not_before_ms
    uint64_t created_ms
    uint64_t source_epoch               # of the source's lease, once the switch is orphaned
    uint32_t terminal
    uint32_t source                     # SIM
    uint32_t target                     # SIM, while ordered
    uint32_t job                        # NONE_INDEX: no job (automatic, stop, revoke)
    uint32_t next                       # queue of its server and priority, or the free list
    uint32_t previous
    uint32_t session                    # that it was sent to
    uint16_t server
    uint8_t kind
    uint8_t state
    uint8_t priority
    uint8_t attempts
    uint8_t orphaned                    # switch: the terminal's lease ended or went elsewhere while it was outstanding
    uint8_t announce                    # 1: it is to be announced before it is sent
    uint8_t announced                   # 1: it was
    uint8_t idle                        # 1: its terminal was idle when the swap was wanted: it goes before others of its lane
    uint8_t overdue                     # 1: it was counted as failed when its deadline passed
    uint8_t probes                      # 1: it is the probe of a breaker

ctypedef struct Breaker:                # 40 B
    uint64_t changed_ms
    uint64_t retry_ms                   # when it is tried again; 0: an access server's, whose gate says when
    uint64_t faded_ms                   # when its counts were last halved
    uint32_t probe                      # order + 1; 0: none is out
    uint32_t failures
    uint32_t successes
    uint8_t state
    uint8_t opens                       # in a row, saturated
    uint8_t reserved[2]

ctypedef struct Group:                  # class x lot x bank: 9792 B
    uint64_t tiers[2]                   # which tiers are not empty
    uint32_t sims_count
    uint16_t pool                       # its lot, if that is pooled (pools.pxi); 0: it is not
    uint8_t pool_health                 # as its lot's
    uint8_t unused
    uint64_t free_count                 # SIMs in the index
    int64_t low_bytes                   # watermarks of its plan
    int64_t exhausted_bytes
    uint32_t head[128]
    uint32_t tail[128]
    uint32_t recent[128][16]            # by tier: ring of the last SIMs pushed, for hints
    uint32_t recent_next[128]
    uint16_t sim_class                  # index into classes
    uint16_t local                      # its number within the class
    uint16_t lot                        # entity index
    uint16_t bank                       # entity index
    uint8_t masked                      # 1: none of its SIMs is selected: its lot, its bank or itself is masked
    uint8_t masked_itself
    uint8_t changes_max                 # changes of terminal of one of its SIMs in a day, from the plan; 0: any number
    uint8_t rank                        # among the groups of its class, by when its lot ends: 0 goes first (tiers.pxi)
    uint8_t reserved[4]

ctypedef struct Market:                 # 608 B
    int64_t expected_bytes              # expected use of a lease; -1: what is learned
    uint32_t entity
    uint32_t classes_count
    uint16_t classes[12]                # indexes into classes, in order of preference
    uint64_t short_since_ms             # since when swaps find no target in it; 0: they do
    uint8_t short_tier                  # the lowest tier for which none was found
    uint8_t learned_tier                # in which the 95th percentile of what leases used lies
    uint8_t reserved[6]
    int64_t learned_bytes               # that percentile, the upper end of its tier; 0: too few leases were reported on yet
    uint64_t uses_weight                # of all in uses
    uint64_t above_weight               # of those above learned_tier
    uint64_t faded_day                  # when it was last halved: Header.day
    uint32_t uses[128]                  # by the tier of what they used: weight of the leases that are over (expected.pxi)
    int64_t bound_bytes                 # what is learned is no more than this, by the caps of its SIMs; 0: any

ctypedef struct Class:                  # 28944 B
    uint64_t tiers[2]                   # tiers in which some unmasked group has a SIM
    uint64_t free_count                 # SIMs in the index, masked groups not counted
    uint64_t groups_count
    uint64_t reserve_count              # I7
    uint64_t last_group                 # rotation over groups, so that no bank or lot is emptied first
    uint64_t ranks_count                # ends of lots that its groups have; up to 1: none goes before another
    uint32_t entity
    uint32_t reserved
    uint64_t summary[128]               # which words of groups[tier] are not zero
    uint64_t groups[128][16]            # unmasked groups with a SIM in the tier
    uint64_t broken[16]                 # groups whose bank's or lot's breaker blocks
    uint16_t members[1024]              # its groups, by their number within the class
    uint64_t rank_roomiest[8]           # by rank, a byte each: the highest tier in which it has a SIM; 0: none, or that one
    uint64_t rank_tiers[128]            # as tiers, of its groups: two words a rank
    uint64_t rank_groups[64][16]        # the groups of the rank
    int64_t least_cap_bytes             # the smallest quota of a lot that it has SIMs of and that works; 0: none has a cap
    int64_t least_so_far_bytes          # the same, of those that the walk has looked at (expected.pxi)

ctypedef struct Server:                 # access server: 632 B
    uint64_t session_opened_ms
    uint64_t gate_changed_ms
    uint64_t window_changed_ms
    uint64_t window_signal_ms           # last shrink: one per round trip
    uint64_t next_order_us              # pacing: not before this instant, Unix microseconds
    uint64_t next_ask_us                # unknown orders: none is asked for before this instant but those whose turn is fixed
    uint64_t gate_until_ms              # end of a back-off
    uint64_t rate_since_ms              # start of the second in which allocations are counted
    uint64_t confirmed_count
    uint64_t session_epoch              # leases whose epoch is not below began after the hello
    uint64_t told_ms                    # when it last reported its load; 0: not in this session
    uint64_t last_sent_ms
    uint64_t dead_ms                    # declared dead: when what it held is freed; 0: it is not, or that was done
    uint64_t admitted_us                # when its queue is empty by what was admitted, Unix microseconds
    uint64_t paced_us                   # the longest that an operation took, by its own account, of those that this and the books are made of
    uint64_t booked_ms[3]               # by lane: the last place that was given to a terminal told to wait
    uint32_t booked_us[3]               # and what of a millisecond comes on top
    uint32_t waits_count                # told to wait, ever, saturated
    uint32_t session                    # 0: none; a newer hello fences the older
    uint32_t entity
    uint32_t ack_us                     # moving average from order to acknowledgement
    uint32_t service_us                 # as reported; 0: never reported
    uint32_t queue_wait_us
    uint32_t interval_us                # between orders, now
    uint32_t clean_count                # acknowledgements since the window last changed
    uint32_t allocations_count          # in this second
    uint32_t allocations_rate           # a second, moving average
    uint32_t queued_count
    uint32_t head[5][8]                 # queues of orders by Priority and lane: 0 those of no job, else the job's
    uint32_t tail[5][8]
    uint16_t window
    uint16_t outstanding
    uint16_t outstanding_max            # ever
    uint16_t back_offs                  # in a row
    uint8_t gate
    uint8_t window_reason
    uint8_t slow_start
    uint8_t reconciled                  # 1: READY has come in this session
    uint8_t reconciling                 # 1: from the hello until every lease was compared with it
    uint8_t gate_reason
    uint8_t waits_for                   # why what is queued was not sent, when dispatch last looked
    uint8_t missed_count                # reports in a row with allocations that waited too long while orders were there
    uint8_t lanes[5]                    # by Priority: a bit per lane that is not empty
    uint8_t turn[5]                     # by Priority: the lane that had its turn last
    uint8_t stormed                     # 1: terminals were told to wait, and swaps have not ramped up since
    uint8_t paused                      # 1: an operator wants no order sent, in whatever session
    uint32_t revokes_count              # orders for SIMs that it named and should not have: at most an eighth of all orders
    uint32_t probe                      # the order under way whose answer opens the gate (gate probing), its index + 1; 0: none
    uint32_t sent_count                 # orders sent in this session, once more each time one was asked for
    uint32_t taken_count                # of these it had received, as it told last
    uint32_t waiting                    # operations that waited in its queue, as it told last; NONE_INDEX: it does not tell
    uint32_t allocation_wait_us         # longest wait of an allocation, as it told last; NONE_INDEX: it does not tell
    uint32_t sweep                      # the sweep that reconciles it; 0: none
    uint32_t announced_count            # swaps announced ahead and not sent yet
    uint32_t unannounced_count          # queued ones that are to be announced
    uint32_t planned_count              # terminals of the job that is being checked
    uint32_t outage_ms                  # moving average from order to traffic; 0: never measured
    uint32_t quarantines_day            # the day on which SIMs were quarantined because of what it said
    uint32_t quarantines_count          # and how many (QUARANTINES_MAX)
    uint32_t leases_count               # on it
    uint32_t hello_leases_count         # that were on it when its session began
    uint32_t named_count                # of these, those that the hello has named
    uint32_t terminals_brought          # that nobody had heard of before it named them
    uint32_t subscribers_brought        # the same of subscribers
    uint32_t strangers_day              # the day on which leases of one subscriber went on as those of another whom nobody knew
    uint32_t strangers_count            # and how many
    uint8_t unheard                     # Unheard
    uint8_t later[3]

ctypedef struct Job:                    # 512 B
    uint64_t created_ms
    uint64_t finished_ms
    uint64_t terminals_count            # selected
    uint64_t queued_count
    uint64_t outstanding_count          # ordered or unknown
    uint64_t confirmed_count
    uint64_t refused_count              # refusals, also those tried again
    uint64_t failed_count               # refusals, and orders that were not answered in time: what budgets are of
    uint64_t given_up_count
    uint64_t skipped_count              # nothing to do: terminal gone, in cool-down, already in a swap
    uint64_t outage_ms                  # of all whose outage was measured
    uint64_t deadline_ms                # 0: none
    uint64_t quiet_from_ms              # the quiet hours that come next, or run; 0: none
    uint64_t quiet_until_ms
    uint64_t announce_ahead_ms
    uint64_t headroom_below_bytes       # 0: every
    uint64_t rate_next_us               # the next swap not before, Unix microseconds
    uint64_t expected_finish_ms         # 0: not known
    uint64_t estimated_ms               # when that was worked out
    uint64_t estimated_settled          # and what was settled then
    uint64_t settled_per_ks             # moving average, per 1,000 s
    uint64_t settled_lately             # confirmed or failed since it began or was resumed: what the budget is judged by
    uint64_t failed_lately
    uint64_t announced_count            # announced and not sent yet
    uint64_t demand_count               # check: terminals that need a target
    uint64_t targets_count              # of them, those that would get one
    uint64_t headroom_needed_bytes
    uint64_t headroom_found_bytes       # at the least, of all SIMs that could serve them
    uint64_t without[5]                 # by Without
    uint32_t actor
    uint32_t state
    uint32_t selecting                  # 0: all terminals are in · 1: JOB_ADD goes on · 2: a filter's sweep goes on
    uint32_t health_mask                # bit per Health; 0: every
    uint32_t id
    uint32_t outages_count              # confirmed swaps whose outage was measured, from the order to traffic
    uint32_t outage_max_ms
    uint32_t unmeasured_count           # confirmed swaps after which no traffic was reported in time
    uint32_t rate_per_minute            # 0: no ceiling
    uint32_t canary_count               # swaps that must do well before the others are sent
    uint32_t budget_ppm                 # failures of what was settled; beyond it the job pauses
    uint32_t approver                   # NONE_INDEX: nobody
    uint32_t check_orders               # how many orders its check looks at, before the SIMs
    uint16_t lot                        # NONE_SHORT: every; so with the next ones. Entity indexes
    uint16_t supplier
    uint16_t carrier
    uint16_t sim_class
    uint16_t bank
    uint16_t server
    uint8_t priority
    uint8_t on_infeasible
    uint8_t dry_run
    uint8_t listed                      # 1: its terminals are named by JOB_ADD
    uint8_t begun                       # 1: it may be sent: checked, and approved where that is needed
    uint8_t canary                      # 1: its first swaps are not judged yet
    uint8_t why                         # JobWhy
    uint8_t bounded                     # SIZE_…: its filter may select no more than size_max; 0: it is a list, or has not begun
    char reason[64]
    uint64_t size_max                   # terminals
    uint64_t beyond_count               # terminals that came under its filter beyond that, and are left out
    uint64_t overdue_count              # outstanding ones that were counted as failed when their deadline passed
    uint64_t run_ms                     # how long it takes outside its quiet hours, by its check
    uint8_t lane                        # of its orders at each access server, once it has begun; 0: 1 + id % 7
    uint8_t shares_lane                 # 1: other jobs had it as well
    uint8_t tail[78]

ctypedef struct Check:                  # 265760 B
    uint32_t demand[256][128]           # by market and tier: terminals that need a target
    uint32_t supply[256][128]           # by class and tier: free healthy SIMs
    uint64_t samples[5][64]             # terminals that would go without, by Without
    uint32_t samples_count[5]
    uint32_t counted[256]               # by class: 1: its headroom was counted
    uint32_t job
    uint32_t share_tier                 # as which a SIM of a pool is counted at most: what a lease needs where it needs most
    uint32_t reserved

ctypedef struct Lot:                    # 1328 B, by the lot's entity; the windows of arrays as in Window, less one
    int64_t quota_bytes[3]              # the cap in force, a lower bound; -1: none
    int64_t planned_bytes[3]            # what its plan says; -1: none
    int64_t before_bytes[3]             # what was in force before; -1: none
    uint64_t since_ms[3]                # since when it is in force
    uint64_t before_since_ms[3]         # and the one before; 0: there was none
    uint8_t basis[3]                    # 0: there is no cap
    uint8_t planned_basis[3]
    uint8_t before_basis[3]
    uint8_t walk_wanted                 # 1: there was no sweep to spare for its limits
    uint8_t populated                   # 1: it has SIMs
    uint8_t begins                      # bit per window in which the walk has SIMs before begins_end count from then on
    uint16_t turned_days                # since its rolling window last took a step, where that is of several days
    uint16_t rolling_days
    uint32_t limits_sweep               # the walk that works out its SIMs' limits, or did last; 0: none did
    uint32_t begins_end
    int64_t waiting_bytes[3]            # the cap that comes into force at waiting_ms; -1: what the plan says then
    uint64_t waiting_ms[3]              # 0: none waits
    uint64_t reset_ms[3]                # when the window next starts anew; 0: nobody has said
    uint64_t last_reset_ms[3]           # the instant of the last one that began, by the calendar; 0: none did
    uint64_t begun_ms[3]                # when it did begin
    uint64_t turn_ms                    # when its timer is due
    uint32_t spread_ms[3]               # over which time the next one's SIMs are spread
    uint32_t begun_spread_ms[3]         # and those of the one that is under way
    uint32_t reset_cursor[3]            # of that: the next SIM
    uint32_t reset_end[3]
    uint32_t reset_count[3]             # SIMs that were reset
    uint32_t sims_first                 # all its SIMs lie from this one on,
    uint32_t sims_end                   # and before this one; 0: nobody knows
    uint32_t timer_next                 # a node of the wheel, as the wheel's nodes are
    uint32_t timer_previous
    uint32_t due_next                   # the next lot of those that have work to do now; 0: none
    uint8_t due                         # 1: it is one of them
    uint8_t resetting                   # bit per window: its reset is under way; bit 3: its slowed SIMs are tried
    uint8_t waiting_basis[3]
    uint8_t validity                    # Validity: otherwise none of its SIMs is selected, and all count as exhausted
    uint8_t pool_health                 # 0, or LOW or EXHAUSTED by what is left of its pool: no SIM of it is handed out
    uint8_t pooled                      # bit per window: its SIMs share the quota
    uint32_t slowed_kbps                # the highest speed above a quota by its plan; 0: not known
    uint16_t pool_days_told             # bit per place of pool_days: what its carrier said of all its SIMs stands there
    uint8_t unused[2]
    uint64_t pool_counted_bytes         # of a pooled lot: accepted reports of all its SIMs, over their lifetime (I8)
    int64_t pool_claimed_bytes          # what its SIMs that are reserved, assigned or held may still use
    int64_t pool_limit_bytes            # pool_counted_bytes at which the nearest cap is reached,
    int64_t pool_low_bytes              # above which the pool is low,
    int64_t pool_exhausted_bytes        # and exhausted
    int64_t pool_offset_bytes[3]        # used in a window = pool_counted_bytes + offset + beside + correction + straddling; if it is pooled
    int64_t pool_beside_bytes[3]        # corrections and allowances of its SIMs,
    int64_t pool_less_bytes[3]          # and of that those that are less than what we counted: 0 or below
    int64_t pool_days[14]               # as SimRolling.days, in bytes
    uint64_t promised_bytes             # what the job that is checked, or was last, has of the pool
    int64_t pool_allowance_bytes[3]     # of beside: what leases may have used that ended without a word
    int64_t pool_correction_bytes[3]    # what the carrier's last figure of the pool moved the window by; a reset clears it
    int64_t pool_straddling_bytes[3]    # taken to be used before the figure's instant, and may have been after it; a reset clears it
    int64_t pool_carrier_bytes[3]       # the carrier's last figure; -1: the window has started anew since
    uint32_t pool_as_of_s[3]            # up to when it counts, Unix seconds; 0: none was told
    uint32_t days_told_s                # the latest end of a single day that a carrier told a figure of, of any of its SIMs; 0: none
    int64_t sims_told_bytes[3]          # of a pooled lot: the sum of the carrier's last figures of its single SIMs (SimLedger.carrier_bytes)
    uint32_t sims_told_since_s[3]       # that are of no earlier instant; 0: there is no sum
    uint32_t sims_told_last_s[3]        # the latest instant that any such figure was ever of
    uint64_t tried_ms                   # when the walk begins, or did, that tries its slowed SIMs; 0: none of its SIMs is slowed
    uint32_t tried_cursor               # of that walk: the next SIM
    uint32_t tried_count                # SIMs that it has put on probation
    uint32_t tried_next_s               # when the walk after it is due, as far as it has come, Unix seconds; 0: it left none
    uint32_t slowed_count               # SIMs that are throttled
    int64_t pool_raised_bytes[3]        # what counts beyond pool_carrier_bytes, since no less was said of the pool's SIMs
    int64_t sims_next_bytes[3]          # the sum that takes the place of sims_told_bytes when that is of too long ago,
    uint32_t sims_next_since_s[3]       # and of when it is; 0: none was begun
    uint32_t exhausted_count            # SIMs that are exhausted: if the lot is not valid, by that
    uint64_t sims_told_counted_bytes[3] # pool_counted_bytes when the last of those figures came, less what its SIM had counted since its instant
    uint64_t pool_told_counted_bytes[3] # what was counted on all of them by pool_as_of_s
    int64_t sims_days_bytes[14]         # by place of pool_days: the sum of what its carrier said of that day of its single SIMs,
    int64_t pool_days_raised_bytes[14]  # and what stands in pool_days beyond what it said of all of them, since it said no less of those
    int64_t pool_days_own_bytes[14]     # of those that its carrier told of all its SIMs: what stood in pool_days before, as SimRolling.own; else 0
    uint64_t ended_ms[3]                # when the last reset that began had come to all of its SIMs; 0: nobody knows, or it is under way
    int64_t pool_added_bytes[3]         # what figures of single SIMs, of later instants than the pool's, added beyond what was counted
    uint16_t days_several               # bit 0: today's use is of several days, nobody knows which; bit 1 + a place of the ring: as well
    uint8_t turn_places                 # by so many places the turn that is under way turns the ring, or the last one did,
    uint8_t turn_place                  # and today's use comes to stand there
    uint8_t turns_all                   # so many more turns all places count; 0: as many as the window has days
    uint8_t turns_keep                  # 1: in these what leaves the ring joins its last place, since a step became longer (windows.pxi),
    uint8_t turn_keeps                  # and in the turn that is under way, or did in the last one
    uint8_t held_over                   # bit per window: the last reset that began had been held up by the clock
    uint32_t from_s[3]                  # what was counted late (SimLate, pool_late_bytes) from then on is of the window that began last
    uint32_t held_s[3]                  # of resets that were due when the clock was confirmed, and have yet to begin: since when it was frozen; 0: none
    uint32_t pool_late_s                # as SimLate.at_s, of the pool
    uint32_t days_since_s               # its rolling window got another number of days before then, and the walk has yet to drop figures of the
                                        # whole window that are of an earlier instant; 0: none
    int64_t pool_late_bytes             # as SimLate.counted_bytes

ctypedef struct GivenUp:                # 48 B
    uint64_t number                     # 0: none
    uint64_t at_ms
    uint64_t terminal
    uint64_t subscriber
    uint32_t job
    uint32_t attempts
    uint16_t server
    uint8_t why                         # Acknowledgement
    uint8_t resolved
    uint32_t target                     # the SIM that was refused last, its index + 1; 0: not known

ctypedef struct Sweep:                  # 32 B
    uint64_t cursor
    uint64_t end
    uint64_t argument
    uint32_t kind
    uint32_t id

ctypedef struct TimerNode:              # 8 B
    uint32_t next
    uint32_t previous

# One region of memory that belongs to the state.
ctypedef struct Region:
    void *data
    uint64_t item_bytes
    uint64_t count                      # items that are part of the state
    uint64_t mapped_bytes

ctypedef struct Wheel:                  # 8392 B
    TimerNode heads[1024]               # 4 levels of 256 slots
    uint64_t bits[16]                   # which slots are not empty
    uint32_t recent[16]                 # ring of the last SIMs that began to cool, for hints
    uint64_t recent_next

cpdef enum TimerKind:
    # upper 3 bits of a timer's id; the lower 29 are the index of what it belongs to
    TIMER_TERMINAL = 0                  # lease expiry
    TIMER_SIM = 1                       # end of cooling
    TIMER_ORDER = 2                     # deadline, or end of a wait
    TIMER_SERVER = 3                    # pacing, end of a back-off
    TIMER_HEAD = 4                      # list heads of the wheel
    TIMER_LOT = 5                       # the next thing that a calendar has for it
    TIMER_KINDS = 6

cpdef enum RegionIndex:
    REGION_HEADER = 0
    REGION_ENTITIES = 1
    REGION_SIMS = 2
    REGION_SIMS_COLD = 3
    REGION_TERMINALS = 4
    REGION_TERMINALS_COLD = 5
    REGION_ORDERS = 6
    REGION_GROUPS = 7
    REGION_CLASSES = 8
    REGION_MARKETS = 9
    REGION_SERVERS = 10
    REGION_READY = 11
    REGION_JOBS = 12
    REGION_SWEEPS = 13
    REGION_WHEEL = 14
    REGION_TIMERS_TERMINALS = 15
    REGION_TIMERS_ORDERS = 16
    REGION_TIMERS_SERVERS = 17
    REGION_ICCID_TABLE = 18
    REGION_IMSI_TABLE = 19
    REGION_TERMINAL_TABLE = 20
    REGION_CHECK = 21
    REGION_GIVEN_UP = 22
    REGION_BREAKERS = 23
    REGION_SUBSCRIBERS = 24
    REGION_SIMS_ROLLING = 25
    REGION_LOTS = 26
    REGION_EXEMPTIONS = 27
    REGION_EVENTS = 28
    REGION_SIMS_LEDGER = 29
    REGION_ENDED_LEASES = 30
    REGION_ENDED_PLACES = 31
    REGION_SIMS_LATE = 32
    REGIONS = 33

# A row of the run of orders, before it becomes columns.
ctypedef struct OrderRow:
    uint64_t order
    uint64_t terminal
    uint64_t epoch
    uint64_t deadline_ms
    uint64_t source_iccid
    uint64_t target_iccid
    uint32_t session
    uint16_t access_server
    uint16_t target_bank
    uint16_t target_slot
    uint8_t kind

# An event: a row of the run of events, and of the ring of those that are remembered.
ctypedef struct EventRow:
    uint64_t event
    uint64_t terminal
    uint64_t subscriber
    uint64_t a
    uint64_t b
    uint64_t at_ms                      # of its apply; not in the run
    uint32_t job
    uint16_t access_server
    uint8_t kind
    uint8_t reason

# A table that finds an index by a key (tables.pxi).
ctypedef struct Table:
    uint32_t *slots                     # the region's
    uint32_t count
    uint32_t index_mask                 # the bits of a slot that hold the index; the others hold the tag

# The typed pointers repeat Region.data. Owned by Machine (machine.pyx), which alone takes and frees.
ctypedef struct State:
    Region regions[33]
    Header *header
    Entity *entities
    Sim *sims
    SimCold *sims_cold
    SimRolling *sims_rolling
    SimLedger *sims_ledger
    SimLate *sims_late
    Lot *lots
    Terminal *terminals
    TerminalCold *terminals_cold
    EndedLease *ended_leases
    uint16_t *ended_places
    Order *orders
    Group *groups
    Class *classes
    Market *markets
    Server *servers
    uint64_t *ready
    Job *jobs
    Sweep *sweeps
    Check *check
    GivenUp *given_up
    Breaker *breakers
    Subscriber *subscribers
    Exemption *exemptions
    Wheel *wheel
    char *timers[6]                     # the first node, by TimerKind
    uint64_t timer_strides[6]           # bytes from one node to the next
    Table iccid_table
    Table imsi_table
    Table terminal_table
    OrderRow *orders_out                # orders of this apply: not part of the state
    uint64_t orders_out_count
    EventRow *events                    # the ring, by number
    EventRow *events_out                # events of this apply: not part of the state
    uint64_t events_out_count
    uint64_t events_out_max
    uint64_t passes_left                # groups without enough in their pool that selection may yet pass by in this apply: not part either
