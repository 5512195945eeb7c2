package console

import "time"

// recordsEvery is how often a live page asks the records at most.
const recordsEvery = 2 * time.Second

// kept are the answers of the records that a live page was made of last, by what was asked. Owned by the goroutine that follows the page.
type kept struct {
	now     func() time.Time
	answers map[string]keptAnswer
}

// keptAnswer is one of them; number is that of the last commit before it was asked for.
type keptAnswer struct {
	number int64
	at     time.Time
	answer any
	err    error
}

// fromRecords returns what ask reads in the records. Of a page that is followed it asks again only where something was written since, or it
// could not be read, and not before recordsEvery has passed; who loads a page is answered at once. What distinguishes questions of a page.
func fromRecords[T any](c *console, v *visit, what string, ask func() (T, error)) (T, error) {
	if v.kept == nil {
		return ask()
	}
	number, now := c.Fleet.Written(), v.kept.now() // before it is asked: what is written meanwhile is asked for the next time
	if last, ok := v.kept.answers[what]; ok && (now.Sub(last.at) < recordsEvery || number == last.number && last.err == nil) {
		answer, _ := last.answer.(T)
		return answer, last.err
	}
	answer, err := ask()
	v.kept.answers[what] = keptAnswer{number, now, answer, err}
	return answer, err
}
