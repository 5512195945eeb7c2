package main

import (
	"errors"
	"sync"
	"time"
)

// errNoAnswer says that something that was asked gives no answer at all, as a file system whose server is gone.
var errNoAnswer = errors.New("it does not answer")

// question is asked of what may never answer: the kernel holds who asks a network file system whose server is gone, and nothing ends
// that. One question is under way at a time, however many ask; so one goroutine, and its thread, is held at most. The zero value may
// be asked. Safe for concurrent use.
type question[T any] struct {
	mu   sync.Mutex // guards what follows; not held while it is asked
	here *answer[T] // of the question under way; nil: none is
}

// answer is what becomes of one question.
type answer[T any] struct {
	began time.Time
	done  chan struct{} // closed when what follows is there
	value T
	err   error
}

// ask returns what fn returns, or errNoAnswer where it is not there after so long; it is waited for no longer by those who ask later
// then. Who asks while a question is under way gets its answer.
func (q *question[T]) ask(most time.Duration, fn func() (T, error)) (T, error) {
	q.mu.Lock()
	a := q.here
	if a == nil {
		a = &answer[T]{began: time.Now(), done: make(chan struct{})}
		q.here = a
		go q.run(a, fn)
	}
	q.mu.Unlock()
	late := time.NewTimer(time.Until(a.began.Add(most)))
	defer late.Stop()
	select {
	case <-a.done:
		return a.value, a.err
	case <-late.C:
	}
	select {
	case <-a.done:
		return a.value, a.err
	default:
	}
	var none T
	return none, errNoAnswer
}

func (q *question[T]) run(a *answer[T], fn func() (T, error)) {
	a.value, a.err = fn()
	q.mu.Lock()
	q.here = nil
	q.mu.Unlock()
	close(a.done)
}
