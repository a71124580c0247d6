// SPDX-License-Identifier: Apache-2.0
import CKernels
import Synchronization

/// Work in numbered items, any of which may run on any thread. The items, not the threads, decide how a result is put
/// together, so that it does not depend on how many threads there were.
struct Job {
    let count: Int
    let context: UnsafeRawPointer
    /// Takes the context, the number of an item and that of the worker, which is less than the number of threads asked for.
    /// A C function, as there is no memory to be had for a closure.
    typealias Body = @convention(c) (UnsafeRawPointer, _ item: Int, _ worker: Int) -> Void
    let body: Body
    /// Threads that have a share of the items, the caller's among them.
    fileprivate let shares: Int

    fileprivate func share(_ worker: Int) -> Range<Int> {
        count * worker / shares..<count * (worker + 1) / shares
    }
}

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
        let processors: Int
        let busy = Atomic<Bool>(false)
        /// Jobs so far, and threads at work on this one besides the caller; changed holding the mutex.
        let jobs = Atomic<Int>(0)
        let activeWorkers = Atomic<Int>(0)
    }

    /// Fields that a thread changes while it holds the mutex.
    private struct State {
        var mutex = pthread_mutex_t()
        var opened = pthread_cond_t()
        var left = pthread_cond_t()
        var started = 0
        var arrived = 0
        var job: Job?
        /// Changed by the one caller that has made the pool busy.
        var watchesForks = false
    }

    private let flags: UnsafeMutablePointer<Flags>
    private let state: UnsafeMutablePointer<State>
    private let slots: UnsafeMutableRawPointer
    private static let lineBytes = 64
    private static func wholeLines(_ bytes: Int) -> Int { (bytes + lineBytes - 1) / lineBytes * lineBytes }
    /// The memory of one worker: the next item of its share, on a cache line of its own, and where it is parked.
    private static let slotBytes = lineBytes + wholeLines(MemoryLayout<threads_place>.size)

    /// Nil if there is no memory.
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
    @inline(never)
    func run(
        _ count: Int, _ context: UnsafeRawPointer, threads: Int, lent: LentThreads? = nil,
        _ body: Job.Body
    ) {
        let shares = min(threads, count, processors)
        guard shares > 1, !flags.pointee.busy.exchange(true, ordering: .acquiring) else {
            for item in 0..<count { body(context, item, 0) }
            return
        }
        if !state.pointee.watchesForks {
            // A child has none of its parent's threads, one of which may hold the lock or have made the pool busy.
            state.pointee.watchesForks = pthread_atfork(nil, nil) { Library.shared?.pointee.pool.reset() } == 0
        }
        let job = Job(count: count, context: context, body: body, shares: shares)
        for worker in 0..<shares { next(worker).pointee.store(job.share(worker).lowerBound, ordering: .relaxed) }
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

    private func open(_ job: Job) {
        pthread_mutex_lock(&state.pointee.mutex)
        while state.pointee.started < job.shares - 1, threads_start(serve, flags) == 0 { state.pointee.started += 1 }
        state.pointee.job = job
        flags.pointee.jobs.wrappingAdd(1, ordering: .relaxed)
        let processor = threads_processor()
        for worker in 1..<job.shares { threads_move_from(place(worker), processor) }
        pthread_cond_broadcast(&state.pointee.opened)
        pthread_mutex_unlock(&state.pointee.mutex)
    }

    /// Waits for those who came in, and for nobody who was too late.
    private func close() {
        pthread_mutex_lock(&state.pointee.mutex)
        state.pointee.job = nil
        spin { $0.activeWorkers.load(ordering: .relaxed) == 0 }
        while flags.pointee.activeWorkers.load(ordering: .relaxed) > 0 {
            pthread_cond_wait(&state.pointee.left, &state.pointee.mutex)
        }
        pthread_mutex_unlock(&state.pointee.mutex)
    }

    private func work(_ job: Job, worker: Int) {
        for turn in 0..<job.shares {
            let owner = (worker + turn) % job.shares
            let share = job.share(owner)
            while case let item = next(owner).pointee.wrappingAdd(1, ordering: .relaxed).oldValue,
                item < share.upperBound
            {
                job.body(job.context, item, worker)
            }
        }
    }

    /// Lets go of the mutex and spins for something, for a moment; holds the mutex again.
    private func spin(_ isThere: (borrowing Flags) -> Bool) {
        if isThere(flags.pointee) { return }
        pthread_mutex_unlock(&state.pointee.mutex)
        var spins = 0
        while spins < Pool.spins && !isThere(flags.pointee) {
            machine_pause()
            spins += 1
        }
        pthread_mutex_lock(&state.pointee.mutex)
    }

    /// The life of a worker. It inherits the floating-point environment of the call that started it, which is the default.
    fileprivate func workerLoop() -> Never {
        pthread_mutex_lock(&state.pointee.mutex)
        state.pointee.arrived += 1
        let worker = state.pointee.arrived
        var seen = 0
        while true {
            let current = flags.pointee.jobs.load(ordering: .relaxed)
            guard current != seen, let job = state.pointee.job, worker < job.shares else {
                spin { $0.jobs.load(ordering: .relaxed) != current }
                if flags.pointee.jobs.load(ordering: .relaxed) == current {
                    threads_park(place(worker))
                    pthread_cond_wait(&state.pointee.opened, &state.pointee.mutex)
                    threads_rise(place(worker))
                }
                continue
            }
            seen = current
            flags.pointee.activeWorkers.wrappingAdd(1, ordering: .relaxed)
            pthread_mutex_unlock(&state.pointee.mutex)
            work(job, worker: worker)
            pthread_mutex_lock(&state.pointee.mutex)
            let activeWorkers = flags.pointee.activeWorkers.wrappingSubtract(1, ordering: .relaxed).newValue
            if activeWorkers == 0 { pthread_cond_signal(&state.pointee.left) }
        }
    }

    /// As it was before the first job.
    private func reset() {
        pthread_mutex_init(&state.pointee.mutex, nil)
        pthread_cond_init(&state.pointee.opened, nil)
        pthread_cond_init(&state.pointee.left, nil)
        state.pointee.started = 0
        state.pointee.arrived = 0
        state.pointee.job = nil
        for worker in 0..<processors {
            place(worker).initialize(to: threads_place())
            place(worker).pointee.processor = -1
        }
        flags.pointee.activeWorkers.store(0, ordering: .relaxed)
        flags.pointee.busy.store(false, ordering: .relaxed)
    }
}

private func serve(_ pool: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    Pool(at: pool.unsafelyUnwrapped).workerLoop()
}
