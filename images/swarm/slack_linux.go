package swarm

import (
	"os"
	"strconv"
	"sync"
)

// timerSlack is by how much the kernel may wake a thread late that waits for a time, in nanoseconds; 50,000 is usual.
const timerSlack = 1_000_000

// slacken lets this process wake up less often: Go's runtime has a thread that looks after the others every 20 µs while
// anything runs, which under a swarm is each time that a packet comes. Nothing here depends on less than a millisecond. It
// needs CAP_SYS_NICE (proc_pid_timerslack_ns(5)); without, all works as well and costs a tenth more processor time. Threads
// that are begun later take it over.
var slacken = sync.OnceFunc(func() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range threads {
		_ = os.WriteFile("/proc/"+t.Name()+"/timerslack_ns", strconv.AppendInt(nil, timerSlack, 10), 0)
	}
})
