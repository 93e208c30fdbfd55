# What the twin's event loop holds: the table of contents of calendar.pyx, world.pyx, columns.pyx and loop.pyx.
#
#   record      bytes each   count                           what stands in it
#   ---------   ----------   -----------------------------   -------------------------------------------------
#   Device             136   terminals                       one terminal: its lease, its use, what it waits for
#   Station         ~9,800   access servers                  queue, speed, patience, what is in flight, its last orders
#   Operation           72   grows with the queues           one place in an access server's queue
#   Event               40   one a terminal, server, switch  a timer; in a bucket, or in the heap of the quantum
#   buckets              4   quanta of the whole run         first event of each quantum
#
# Instants are nanoseconds since the scenario's start, so that an operation of a third of a millisecond stays one.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    NONE = 0xFFFFFFFF            # no such index
    SEEN = 1024                  # orders that an access server remembers, so that none is carried out twice
    SEEN_PENDING = 0             # still carried out; otherwise layout.AckResult

cdef enum DeviceState:
    DEVICE_OFF = 0
    DEVICE_REQUESTING = 1        # its request stands in its access server's queue, or is being served
    DEVICE_ASKED = 2             # served: the engine's answer comes at the end of the quantum
    DEVICE_PAUSED = 3            # the request failed; it asks again after a pause
    DEVICE_ON = 4
    DEVICE_SWITCHING = 5         # its line is down: it moves to another SIM
    DEVICE_SWITCH_ASKED = 6      # a switch that a driver ordered was served: the engine's answer is to come

cdef enum OperationKind:
    OPERATION_ALLOCATE = 0
    OPERATION_ORDER = 1          # an order of the engine
    OPERATION_DRIVEN = 2         # a switch that a driver ordered, past the engine
    OPERATION_VOID = 3           # it was being served when it was dropped

# Why an allocation was asked for.
cdef enum ItemFlag:
    ITEM_REQUEST = 0
    ITEM_INITIAL = 1             # the terminal is on when the scenario begins: no request of it is counted
    ITEM_DRIVEN = 2              # the re-allocation of a driver's switch
    ITEM_FIRST = 3               # its operation is still to come

cdef enum EventKind:
    EVENT_TURNED_ON = 0
    EVENT_DEVICE = 1             # the one timer of a terminal
    EVENT_SERVED = 2
    EVENT_SWITCHED = 3           # a switching terminal's line is back
    EVENT_RELEASE_BATCH = 4      # a driver orders its next batch at an access server
    EVENT_LOAD = 5               # the load reports of all access servers
    EVENT_TELL = 6               # a load report of one, which would have come too soon after its last

# Command runs leave in this order, so that a report still finds its lease and a release its confirmed switch.
cdef enum Outbox:
    OUT_ACKNOWLEDGE = 0
    OUT_USAGE = 1
    OUT_RELEASE = 2
    OUT_ALLOCATE = 3
    OUT_LOAD = 4
    OUT_KINDS = 5

ctypedef struct Device:
    int64_t rate_bytes_per_s
    int64_t report_ns                # between usage reports
    int64_t off_ns                   # when it turns off
    int64_t asked_ns                 # since when it is on without a line
    int64_t request_ns               # when the present attempt began
    int64_t counted_ns               # use is counted up to here
    int64_t next_report_ns
    uint64_t used_bytes              # cumulative, of this epoch
    uint64_t reported_bytes          # what the last report said
    uint64_t epoch
    uint64_t pending_epoch           # while switching, or while it attaches with the SIM it was given: what it will hold; 0: nothing
    uint64_t pending_order           # the engine's order that is being carried out; 0: a driver's
    int64_t outage_ns                # of the switch that is being carried out
    uint32_t pending_sim
    uint32_t sim
    uint32_t generation              # raised when queued operations of it become void
    uint32_t timer                   # raised when its event becomes void
    uint32_t switches_count          # begun
    uint16_t server
    uint16_t market
    uint8_t state

ctypedef struct Operation:
    int64_t arrived_ns
    uint64_t order
    uint64_t epoch
    uint64_t source
    uint64_t target
    uint64_t session
    uint32_t terminal
    uint32_t generation
    uint8_t kind
    uint8_t order_kind

ctypedef struct Item:                # one command, before its columns are laid out
    uint64_t a
    uint64_t b
    uint64_t c
    int64_t at_ns
    uint32_t terminal
    uint32_t flag

ctypedef struct Box:
    Item *items
    uint32_t count
    uint32_t size

ctypedef struct Station:             # an access server
    int64_t service_ns               # of one operation; its speed is the inverse
    int64_t timeout_ns
    int64_t pause_ns
    int64_t outage_ns
    int64_t outage_spread_us
    uint64_t refused_below           # of 2**32
    int64_t busy_above               # queued operations above which an order is answered BUSY; -1: never
    Operation current
    Operation *ring
    uint32_t ring_size               # a power of two
    uint32_t ring_head
    uint32_t ring_count
    uint32_t serving
    int64_t last_wait_ns
    int64_t allocation_wait_ns       # longest since the last load report
    int64_t told_ns                  # the last load report
    uint32_t told_full               # it said that something waited, or had waited for longer than an operation takes
    uint32_t tell_set                # an EVENT_TELL is under way
    uint32_t taken_count             # orders received in this session
    uint32_t active                  # something happened since the last load report
    uint32_t in_flight               # switches ordered and not settled
    uint32_t in_flight_max
    uint32_t orders_in_flight        # switches, stops and revokes of the engine
    uint32_t orders_in_flight_max
    uint32_t driven_next             # its part of the driver's list
    uint32_t driven_end
    uint32_t dirty
    uint64_t session                 # 0: it has none; its orders are not heard, nor are its acknowledgements
    uint64_t lost_below              # of 2**32: share of acknowledgements that are lost on their way
    uint64_t seen[1024]              # the orders that came last, in a ring; and what became of each
    uint8_t seen_result[1024]
    uint32_t seen_next
    uint32_t serve_mark              # raised when the operation that is being served becomes void
    uint32_t stopped                 # it does nothing and says nothing; its queue stands
    uint32_t frozen                  # its operation was done while it was stopped
    uint32_t down                    # and its queue is gone: who asks hears nothing
    uint32_t busy                    # every switch is answered BUSY
    uint32_t wait_peak_us            # of its allocations since the last sample
    uint32_t failed                  # requests
    uint32_t failed_told             # of these, those that a load report told of
    uint32_t asks_first              # the engine is asked before the operation, not after it
    uint16_t number
    Box boxes[5]                     # what is to be said
    Box said[5]                      # what was said, until it is answered

ctypedef struct Event:
    int64_t at_ns
    uint64_t sequence                # breaks ties in the order of creation
    uint32_t next                    # in its bucket, or in the free list
    uint32_t subject
    uint32_t mark                    # void unless the subject's counter still says so
    uint16_t kind

ctypedef struct Run:                 # a command run that left, until its outcomes are read
    uint32_t server
    uint32_t first
    uint32_t count
    uint32_t kind

ctypedef struct World:
    int64_t now_ns
    int64_t quantum_ns
    int64_t end_ns
    int64_t load_interval_ns
    int64_t gap_ns                   # of the driver
    uint64_t per_gap
    uint64_t key_first
    uint64_t iccid_first             # body of the first SIM's ICCID, without its check digit
    uint64_t event_sequence
    uint32_t devices_count
    uint32_t stations_count
    uint32_t sims_count
    uint32_t draws_count
    uint64_t sessions_count
    uint64_t sessions_next
    uint64_t quantum                 # the next one to be processed
    uint64_t quanta
    Device *devices
    Station *stations
    int64_t *slow_bytes_per_s        # per SIM; INT64_MAX: at full speed
    uint32_t *sim_refused_below      # per SIM, of 2**32: share of switches to it that fail
    uint32_t *draws
    int64_t *session_on_ns
    int64_t *session_off_ns
    uint32_t *session_terminal
    uint32_t *buckets
    Event *events
    uint32_t events_size
    uint32_t events_used
    uint32_t events_free
    uint32_t *heap
    uint32_t heap_count
    uint32_t heap_size
    uint32_t *driven
    uint32_t *dirty                  # access servers with something to say
    uint32_t *server_of_number
    uint32_t dirty_count
    Run *runs
    uint32_t runs_count
    uint32_t runs_size
    uint32_t *waits_us               # of every request that was answered or given up
    uint64_t waits_count
    uint64_t waits_size
    # Counters. requested = granted + failed + withdrawn + told to wait + waiting, always.
    uint64_t requested
    uint64_t granted
    uint64_t failed
    uint64_t withdrawn
    uint64_t waiting
    uint64_t told_to_wait            # requests that were answered with a time to come back
    uint64_t events_count
    uint64_t commands_count
    uint64_t switches_ordered        # = completed + failed + withdrawn + in flight
    uint64_t switches_completed
    uint64_t switches_failed
    uint64_t switches_withdrawn
    uint64_t switches_busy
    uint64_t in_flight
    uint64_t in_flight_max
    uint64_t driven_left             # not yet ordered by the driver
    uint64_t lines_lost
    uint64_t acknowledgements_lost
    uint64_t orders_repeated         # the engine asked again for one that was seen before
    uint64_t draws_used              # of lost acknowledgements
    int64_t settled_ns               # when a switch was last settled
    int64_t line_last_ns             # when a terminal that asks first last had its line
    uint32_t on_count                # terminals that are on
    uint32_t well_count              # of these, with a line that the carrier has not slowed
    int64_t outage_us                # summed over terminals
    # Since the last sample.
    uint64_t in_flight_peak
    uint32_t in_flight_worst_peak
    uint32_t wait_peak_us
    uint64_t wait_sum_us
    uint64_t statuses[64]            # what the engine said to reports and releases that it did not accept
