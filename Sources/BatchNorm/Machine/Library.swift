// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels
import Synchronization

/// All the state that the library has, made at the first call and never taken down.
struct Library: ~Copyable {
    /// The loops of the instruction set in use.
    let kernels: UnsafePointer<kernel_table>
    let environment: Environment
    let pool: Pool
    /// The number that bn_set_num_threads asked for; 0 stands for the environment's default.
    private let requested = Atomic<Int>(0)
    private let key: pthread_key_t

    /// Nil if there is no memory for it, or no key for its threads' own; a later call tries again. Several first calls
    /// make one each, and one of them stays: a lock might be held for ever in the child of a fork.
    static var shared: UnsafeMutablePointer<Library>? {
        if let known = machine_load(&theLibrary) { return known.assumingMemoryBound(to: Library.self) }
        return first()
    }

    @inline(never)
    private static func first() -> UnsafeMutablePointer<Library>? {
        if let made = make(), !machine_publish(&theLibrary, made) { discard(made) }
        return machine_load(&theLibrary)?.assumingMemoryBound(to: Library.self)
    }

    private static func make() -> UnsafeMutablePointer<Library>? {
        // The table of loops behind it.
        let size = MemoryLayout<Library>.stride
        guard let memory = malloc(size + MemoryLayout<kernel_table>.size) else { return nil }
        guard let pool = Pool(processors: poolSize) else {
            free(memory)
            return nil
        }
        var key = pthread_key_t()
        guard threads_key_create(&key, { ThreadState.destroy($0) }) == 0 else {
            pool.discard()
            free(memory)
            return nil
        }
        let library = memory.bindMemory(to: Library.self, capacity: 1)
        library.initialize(to: Library(pool, key, (memory + size).bindMemory(to: kernel_table.self, capacity: 1)))
        return library
    }

    /// The tests of the engine, in a debug build, are about what many threads do, on any machine.
    private static var poolSize: Int {
        #if DEBUG
            max(Environment.processors, 8)
        #else
            Environment.processors
        #endif
    }

    /// Undoes `make`.
    private static func discard(_ library: UnsafeMutablePointer<Library>) {
        library.pointee.environment.discard()
        threads_key_delete(library.pointee.key)
        library.pointee.pool.discard()
        free(library)
    }

    private init(_ pool: Pool, _ key: pthread_key_t, _ table: UnsafeMutablePointer<kernel_table>) {
        environment = Environment()
        environment.isa.load(table)
        kernels = UnsafePointer(table)
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

    /// Threads that can be at work at once.
    var workers: Int { min(threads, pool.processors) }

    var thread: UnsafeMutablePointer<ThreadState>? { ThreadState.current(key) }
}

/// One in the library: a variable in a C header would be one in every object file that includes it.
nonisolated(unsafe) private var theLibrary: UnsafeMutableRawPointer?
