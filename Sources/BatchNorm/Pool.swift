// SPDX-License-Identifier: Apache-2.0
import CKernels
import Synchronization

/// Work in numbered items, any of which may run on any thread. The items, not the threads, decide how a result is put
/// together, so that it does not depend on how many threads there were.
struct Job {
    let count: Int
    let context: UnsafeRawPointer
    /// Takes the context and the number of an item. A C function, as there is no memory to be had for a closure.
    let body: @convention(c) (UnsafeRawPointer, Int) -> Void
}

/// The library's own threads: none until the first job that wants them, parked between jobs, never joined. They serve
/// one caller at a time; another one that comes meanwhile does its work alone.
final class Pool {
    static let maximum = 1024

    private let busy = Atomic<Bool>(false)
    private let next = Atomic<Int>(0)
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let opened = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let left = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    /// The rest is guarded by the mutex.
    private var workers = 0
    private var job: Job?
    private var openings = 0
    private var inside = 0
    private var watchesForks = false

    init() { reset() }

    /// Runs all items, on up to `threads` threads with the caller's among them, and returns when the last one is done.
    func run(_ job: Job, threads: Int) {
        let helpers = min(threads, job.count) - 1
        guard helpers > 0, !busy.exchange(true, ordering: .acquiring) else {
            for item in 0..<job.count { job.body(job.context, item) }
            return
        }
        open(job, helpers)
        work(job)
        close()
        busy.store(false, ordering: .releasing)
    }

    private func open(_ job: Job, _ helpers: Int) {
        next.store(0, ordering: .relaxed)
        pthread_mutex_lock(mutex)
        if !watchesForks {
            // A child has none of its parent's threads, and its copy of the lock may be held by one of them.
            watchesForks = pthread_atfork(nil, nil) { Library.shared.pointee.pool.reset() } == 0
        }
        while workers < helpers, threads_start(serve, nil) == 0 { workers += 1 }
        self.job = job
        openings = helpers
        pthread_cond_broadcast(opened)
        pthread_mutex_unlock(mutex)
    }

    /// Waits for those who came in, and for nobody who was too late.
    private func close() {
        pthread_mutex_lock(mutex)
        openings = 0
        while inside > 0 { pthread_cond_wait(left, mutex) }
        job = nil
        pthread_mutex_unlock(mutex)
    }

    private func work(_ job: Job) {
        while case let item = next.wrappingAdd(1, ordering: .relaxed).oldValue, item < job.count {
            job.body(job.context, item)
        }
    }

    /// The life of a worker.
    fileprivate func attend() -> Never {
        pthread_mutex_lock(mutex)
        while true {
            guard openings > 0, let job else {
                pthread_cond_wait(opened, mutex)
                continue
            }
            openings -= 1
            inside += 1
            pthread_mutex_unlock(mutex)
            work(job)
            pthread_mutex_lock(mutex)
            inside -= 1
            if inside == 0 { pthread_cond_signal(left) }
        }
    }

    /// As it was before the first job.
    private func reset() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(opened, nil)
        pthread_cond_init(left, nil)
        workers = 0
        job = nil
        openings = 0
        inside = 0
        busy.store(false, ordering: .relaxed)
    }
}

private func serve(_: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    Library.shared.pointee.pool.attend()
}
