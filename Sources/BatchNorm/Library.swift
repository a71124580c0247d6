// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels
import Synchronization

/// All the state that the library has, made at the first call and never taken down.
struct Library: ~Copyable {
    let kernels: kernel_table
    let environment: Environment
    let pool = Pool()
    /// What bn_set_num_threads asked for; 0 stands for the environment's default.
    private let requested = Atomic<Int>(0)
    private let key: pthread_key_t

    static var shared: UnsafeMutablePointer<Library> {
        threads_once {
            let memory = UnsafeMutablePointer<Library>.allocate(capacity: 1)
            memory.initialize(to: Library())
            theLibrary = memory
        }
        return theLibrary.unsafelyUnwrapped
    }

    var threads: Int {
        get {
            let count = requested.load(ordering: .relaxed)
            return count == 0 ? environment.threads : count
        }
        nonmutating set { requested.store(newValue, ordering: .relaxed) }
    }

    var thread: UnsafeMutablePointer<ThreadState>? { ThreadState.current(key) }

    private init() {
        environment = Environment()
        var table = kernel_table()
        environment.isa.load(&table)
        kernels = table
        var key = pthread_key_t()
        pthread_key_create(&key) { ThreadState.destroy($0) }
        self.key = key
    }
}

nonisolated(unsafe) private var theLibrary: UnsafeMutablePointer<Library>?
