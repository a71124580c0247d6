// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels
import Synchronization

/// All the state that the library has, made at the first call and never taken down.
struct Library: ~Copyable {
    let kernels: kernel_table
    let environment: Environment
    let pool: Pool
    /// What bn_set_num_threads asked for; 0 stands for the environment's default.
    private let requested = Atomic<Int>(0)
    private let key: pthread_key_t

    /// Nil if there is no memory for it, or no key for its threads' own; a later call tries again.
    static var shared: UnsafeMutablePointer<Library>? {
        if let known = machine_load(&theLibrary) { return known.assumingMemoryBound(to: Library.self) }
        pthread_mutex_lock(&making)
        defer { pthread_mutex_unlock(&making) }
        if theLibrary == nil { machine_store(&theLibrary, make()) }
        return theLibrary?.assumingMemoryBound(to: Library.self)
    }

    private static func make() -> UnsafeMutableRawPointer? {
        guard let memory = malloc(MemoryLayout<Library>.size) else { return nil }
        var key = pthread_key_t()
        guard let pool = Pool(), pthread_key_create(&key, { ThreadState.destroy($0) }) == 0 else {
            free(memory)
            return nil
        }
        memory.bindMemory(to: Library.self, capacity: 1).initialize(to: Library(pool, key))
        return memory
    }

    private init(_ pool: Pool, _ key: pthread_key_t) {
        environment = Environment()
        var table = kernel_table()
        environment.isa.load(&table)
        kernels = table
        self.pool = pool
        self.key = key
    }

    var threads: Int {
        get {
            let count = requested.load(ordering: .relaxed)
            return count == 0 ? environment.threads : count
        }
        nonmutating set { requested.store(newValue, ordering: .relaxed) }
    }

    var thread: UnsafeMutablePointer<ThreadState>? { ThreadState.current(key) }
}

/// One of each in the library: a flag in a C header would be one in every object file that includes it.
nonisolated(unsafe) private var theLibrary: UnsafeMutableRawPointer?
nonisolated(unsafe) private var making = pthread_mutex_t()
