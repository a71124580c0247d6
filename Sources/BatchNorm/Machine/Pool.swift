// SPDX-License-Identifier: Apache-2.0
import CKernels
import Synchronization

/// The library's own threads: none until the first job that wants them, never joined, and with the caller's no more than
/// there are processors. After a job they spin for about 20 µs, then they sleep. They serve one caller at a
/// time; another one that comes meanwhile does its work alone.
///
/// Each thread has a share of the items, and always the same, so that it finds in its cache what it had the last time; when
/// it is through, it takes what others have left of theirs.
struct Pool {
    /// Looks of a thread before it parks. A look takes 20 to 50 ns; to wake a parked thread takes 20 to 50 µs.
    private static let spins = 1000

    /// Fields that threads update concurrently. They stay where they are, and are reached by pointer alone.
    private struct Flags: ~Copyable {
        let gate = Gate()
        let arrived = Atomic<Int>(0)
        let busy = Atomic<Bool>(false)
        let processors: Int
    }

    /// Fields of the one caller that has made the pool busy.
    private struct State {
        /// Read by the workers inside.
        var job: Job?
        var started = 0
        var watchesForks = false
        /// Held to park and to wake, and by nobody who is awake and has work.
        var mutex = pthread_mutex_t()
        var opened = pthread_cond_t()
        var left = pthread_cond_t()
    }

    private let flags: UnsafeMutablePointer<Flags>
    private let state: UnsafeMutablePointer<State>
    private let slots: UnsafeMutableRawPointer
    private static let lineBytes = 64
    private static func wholeLines(_ bytes: Int) -> Int { (bytes + lineBytes - 1) / lineBytes * lineBytes }
    /// The memory of one worker: the next item of its share, on a cache line of its own, and where it is parked.
    private static let slotBytes = lineBytes + wholeLines(MemoryLayout<threads_place>.size)

    /// Nil if there is no memory.
    @_optimize(size)
    init?(processors: Int) {
        let processors = min(processors, Environment.mostThreads)
        let bytes = Pool.lineBytes + processors * Pool.slotBytes + MemoryLayout<State>.size
        guard let memory = malloc(bytes) else { return nil }
        memory.assumingMemoryBound(to: Flags.self).initialize(to: Flags(processors: processors))
        self.init(at: memory)
        state.initialize(to: State())
        for worker in 0..<processors { next(worker).initialize(to: Atomic(0)) }
        reset()
    }

    fileprivate init(at memory: UnsafeMutableRawPointer) {
        flags = memory.assumingMemoryBound(to: Flags.self)
        slots = memory + Pool.lineBytes
        state = (slots + flags.pointee.processors * Pool.slotBytes).assumingMemoryBound(to: State.self)
    }

    private func next(_ worker: Int) -> UnsafeMutablePointer<Atomic<Int>> {
        (slots + worker * Pool.slotBytes).assumingMemoryBound(to: Atomic<Int>.self)
    }

    /// Touched holding the mutex.
    private func place(_ worker: Int) -> UnsafeMutablePointer<threads_place> {
        (slots + worker * Pool.slotBytes + Pool.lineBytes).assumingMemoryBound(to: threads_place.self)
    }

    var processors: Int { flags.pointee.processors }

    /// For a pool that never ran anything.
    func discard() { free(flags) }

    /// Runs all items, on up to `threads` threads with the caller's among them, and returns when the last one is done. Lent
    /// threads take the place of the pool's own.
    @_optimize(size) @inline(never)
    func run(
        _ count: Int, _ context: UnsafeRawPointer, threads: Int, lent: LentThreads? = nil, descending: Bool = false,
        _ body: Job.Body
    ) {
        let job = Job(
            count: count, context: context, body: body, shares: min(threads, count, processors),
            isDescending: descending)
        guard job.shares > 1, !flags.pointee.busy.exchange(true, ordering: .acquiring) else {
            for index in 0..<job.count { job.run(index, of: 0..<job.count, worker: 0) }
            return
        }
        if !state.pointee.watchesForks {
            // A child has none of its parent's threads, one of which may hold the lock or have made the pool busy.
            state.pointee.watchesForks = pthread_atfork(nil, nil) { Library.shared?.pointee.pool.reset() } == 0
        }
        for worker in 0..<job.shares { next(worker).pointee.store(job.share(worker).lowerBound, ordering: .relaxed) }
        if let lent {
            run(job, on: lent)
        } else {
            open(job)
            work(job, worker: 0)
            close()
        }
        flags.pointee.busy.store(false, ordering: .releasing)
    }

    /// Lent threads and what they are lent for.
    private struct Loan {
        let pool: Pool
        let job: Job
    }

    /// A lent thread works under the number that it comes with. The calling thread does what nobody came for, so that a job
    /// is always done.
    private func run(_ job: Job, on lent: LentThreads) {
        var loan = Loan(pool: self, job: job)
        lent(job.shares, &loan) { argument, worker in
            let loan = argument.unsafelyUnwrapped.assumingMemoryBound(to: Loan.self)
            guard 0..<loan.pointee.job.shares ~= worker else { return }
            let floats = machine_enter_floats()
            loan.pointee.pool.work(loan.pointee.job, worker: worker)
            machine_leave_floats(floats)
        }
        work(job, worker: 0)
    }

    @_optimize(size)
    private func open(_ job: Job) {
        while state.pointee.started < job.shares - 1, threads_start(serve, flags) == 0 { state.pointee.started += 1 }
        state.pointee.job = job
        if flags.pointee.gate.open(shares: job.shares) { wake(1..<job.shares) }
    }

    @_optimize(size)
    private func wake(_ workers: Range<Int>) {
        pthread_mutex_lock(&state.pointee.mutex)
        if workers.contains(where: { threads_is_parked(place($0)) }) {
            let processor = threads_processor()
            for worker in workers { threads_move_from(place(worker), processor) }
            pthread_cond_broadcast(&state.pointee.opened)
        }
        pthread_mutex_unlock(&state.pointee.mutex)
    }

    /// Waits for those who came in, and for nobody who was too late.
    @_optimize(size)
    private func close() {
        flags.pointee.gate.close()
        if spin(until: { $0.isEmpty }) { return }
        pthread_mutex_lock(&state.pointee.mutex)
        flags.pointee.gate.callerSleeps()
        while !flags.pointee.gate.isEmpty { pthread_cond_wait(&state.pointee.left, &state.pointee.mutex) }
        pthread_mutex_unlock(&state.pointee.mutex)
    }

    private func work(_ job: Job, worker: Int) {
        for turn in 0..<job.shares {
            let owner = (worker + turn) % job.shares
            let share = job.share(owner)
            while case let index = next(owner).pointee.wrappingAdd(1, ordering: .relaxed).oldValue,
                index < share.upperBound
            {
                job.run(index, of: share, worker: worker)
            }
        }
    }

    /// Returns true if something came about within a moment.
    private func spin(until isThere: (borrowing Gate) -> Bool) -> Bool {
        for _ in 0..<Pool.spins {
            if isThere(flags.pointee.gate) { return true }
            machine_pause()
        }
        return false
    }

    /// The life of a worker. It inherits the floating-point environment of the call that started it, which is the default.
    @_optimize(size)
    fileprivate func workerLoop() -> Never {
        let worker = flags.pointee.arrived.wrappingAdd(1, ordering: .relaxed).newValue
        var last: UInt = 0
        while true {
            guard let job = flags.pointee.gate.enter(worker, after: last) else {
                rest(worker, after: last)
                continue
            }
            last = job
            work(state.pointee.job.unsafelyUnwrapped, worker: worker)
            if flags.pointee.gate.leave() { wakeCaller() }
        }
    }

    /// Until there may be a job: awake for a moment, then asleep.
    @_optimize(size)
    private func rest(_ worker: Int, after last: UInt) {
        if spin(until: { $0.admits(worker, after: last) }) { return }
        pthread_mutex_lock(&state.pointee.mutex)
        threads_park(place(worker))
        if flags.pointee.gate.workerSleeps(worker, after: last) {
            pthread_cond_wait(&state.pointee.opened, &state.pointee.mutex)
        }
        flags.pointee.gate.workerWakes()
        threads_rise(place(worker))
        pthread_mutex_unlock(&state.pointee.mutex)
    }

    private func wakeCaller() {
        pthread_mutex_lock(&state.pointee.mutex)
        pthread_cond_signal(&state.pointee.left)
        pthread_mutex_unlock(&state.pointee.mutex)
    }

    /// As it was before the first job.
    @_optimize(size)
    private func reset() {
        pthread_mutex_init(&state.pointee.mutex, nil)
        pthread_cond_init(&state.pointee.opened, nil)
        pthread_cond_init(&state.pointee.left, nil)
        state.pointee.started = 0
        state.pointee.job = nil
        for worker in 0..<processors {
            place(worker).initialize(to: threads_place())
            place(worker).pointee.processor = -1
        }
        flags.initialize(to: Flags(processors: processors))
    }
}

private func serve(_ pool: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    Pool(at: pool.unsafelyUnwrapped).workerLoop()
}
