package agent

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"seedbed/appliance/job"
	"seedbed/initramfs/board"
	"seedbed/initramfs/disk"
)

// stand puts on the board how the machine stands; who it is stays.
func (s *Screen) stand(now board.Board) {
	s.Show(func(b *board.Board) {
		now.Name, now.ID, now.About, now.Notice = b.Name, b.ID, b.About, b.Notice
		*b = now
	})
}

// Stand puts on the board how the machine stands: a word, and a sentence that says what happens, to what, what to do.
func (s *Screen) Stand(level board.Level, word, sentence string) {
	s.stand(board.Board{Level: level, Word: word, Message: sentence})
}

// notice puts something on the board that holds beside the work; "" takes it away.
func (s *Screen) notice(text string) { s.Show(func(b *board.Board) { b.Notice = text }) }

// noAnswer is how a machine stands that has no work and waits for the appliance.
const noAnswer = "no answer"

// unanswered puts on the board that the appliance does not answer: as the word where the machine has neither work nor a code to show.
func (s *Screen) unanswered(sentence string) {
	s.Show(func(b *board.Board) {
		if b.Notice = sentence; b.Image == "" && b.Code == "" {
			b.Level, b.Word, b.Message = board.Waiting, noAnswer, ""
		}
	})
}

// answered takes that away.
func (s *Screen) answered() {
	s.Show(func(b *board.Board) {
		if b.Notice = ""; b.Word == noAnswer {
			b.Word = "waiting"
		}
	})
}

// words are what a machine does in a phase, for people.
var words = map[job.Phase]string{
	job.PhaseStart: "preparing", job.PhaseCheck: "disk check", job.PhaseFrame: "clearing", job.PhaseHash: "looking",
	job.PhaseContent: "copying", job.PhaseFree: "clearing", job.PhaseVerify: "reading back", job.PhaseTable: "finishing",
	job.PhaseSeed: "done", job.PhaseReboot: "done", job.PhaseMap: "mapping", job.PhaseRead: "capturing", job.PhaseCommit: "publishing", job.PhaseWipe: "wiping",
}

// headlines are what a code means, in few words; others say themselves.
var headlines = map[string]string{
	disk.CodeNoDisk: "no disk", disk.CodeTooSmall: "disk too small", disk.CodeAmbiguous: "several disks", disk.CodeSectorSize: "wrong disk",
	"disk-busy": "disk in use", "disk-open": "disk error", "disk-error": "disk error", "verify-error": "disk error", disk.CodeWipe: "disk error",
	"keep-refused": "other partitions", job.CodeDamaged: "disk differs", "operator": "", "cancelled": "",
}

func headline(code string) string {
	if h, known := headlines[code]; known {
		return h
	}
	return strings.ReplaceAll(code, "-", " ")
}

// workBoard shows a job's reports on the board. Owned by the goroutine of the reports; the zero value with a screen is ready.
type workBoard struct {
	screen *Screen
	j      job.Job
	phase  job.Phase
	rate   rate
}

func (w *workBoard) show(r job.Report) {
	done, _ := progress(w.j.Kind, r)
	if r.Phase != w.phase || r.State == job.Paused {
		w.phase, w.rate = r.Phase, rate{}
	}
	w.screen.stand(boardOf(w.j, r, w.rate.at(time.Now(), done)))
}

// progress returns how many bytes of how many the phase has done; a total of zero is not known.
func progress(k job.Kind, r job.Report) (done, total int64) {
	switch {
	case r.Phase == job.PhaseContent:
		return r.Held, r.Total
	case r.Phase == job.PhaseVerify && k != job.WipeDisk:
		return r.Verified, r.Total
	case r.Phase == job.PhaseWipe, r.Phase == job.PhaseRead:
		return r.Done, r.Total
	}
	return 0, 0
}

// boardOf returns what a report looks like from the back of a room. bytesPerSecond of what the phase does; 0 is not known.
func boardOf(j job.Job, r job.Report, bytesPerSecond float64) board.Board {
	b := board.Board{Level: board.Working, Word: words[r.Phase], Image: j.ImageName, Disk: r.Disk, Facts: facts(r), Message: message(j, r.Phase)}
	if r.Disk != "" && r.DiskSerial != "" {
		b.Disk += ", serial " + r.DiskSerial
	}
	switch {
	case r.State == job.Paused:
		b.Level, b.Word, b.Headline, b.Message = board.Waiting, "paused", headline(r.Code), r.Reason
		if r.Total > 0 && r.Held > 0 {
			b.Done, b.Total = r.Held, r.Total
		}
	case r.Phase == job.PhaseSeed || r.Phase == job.PhaseReboot:
		b.Level = board.Done
		if j.Kind.Swarms() && j.Options.Verify != "" && j.Options.Verify != job.VerifyFull {
			b.Headline = "unverified"
		}
	default:
		b.Done, b.Total = progress(j.Kind, r)
		b.BytesPerSecond, b.Left = bytesPerSecond, timeLeft(b.Total-b.Done, bytesPerSecond)
	}
	switch {
	case j.Kind == job.VerifyDisk && r.Phase == job.PhaseVerify:
		b.Word = "comparing"
	case j.Kind == job.WipeDisk && r.Phase == job.PhaseVerify:
		b.Word = "checking"
	}
	return b
}

// facts are the counters of a report that people ask for.
func facts(r job.Report) string {
	var list []string
	switch r.Phase {
	case job.PhaseContent:
		list = append(list, fmt.Sprintf("%s of %s", disk.Size(r.Held), disk.Size(r.Total)), peers(r.Peers))
		for _, from := range []struct {
			whom  string
			bytes int64
		}{{"the appliance", r.FromAppliance}, {"peers", r.FromPeers}, {"seed nodes", r.FromSeeds}, {"this disk", r.Resumed}} {
			if from.bytes > 0 {
				list = append(list, fmt.Sprintf("from %s %s", from.whom, disk.Size(from.bytes)))
			}
		}
	case job.PhaseSeed:
		list = append(list, peers(r.Peers), fmt.Sprintf("%s sent to others", disk.Size(r.ToPeers)))
	case job.PhaseVerify:
		list = append(list, fmt.Sprintf("%s of %s right", disk.Size(r.Verified), disk.Size(r.Total)))
	case job.PhaseRead, job.PhaseCommit:
		list = append(list, fmt.Sprintf("%s of %s read, %s sent", disk.Size(r.Done), disk.Size(r.Total), disk.Size(r.Sent)))
	case job.PhaseWipe:
		list = append(list, fmt.Sprintf("%s of %s", disk.Size(r.Done), disk.Size(r.Total)))
	}
	return strings.Join(list, ", ")
}

func peers(n int) string {
	if n == 1 {
		return "1 peer"
	}
	return fmt.Sprintf("%d peers", n)
}

// message says what a person before the machine may do in a phase.
func message(j job.Job, p job.Phase) string {
	then := map[string]string{Reboot: "restarts", PowerOff: "switches itself off", Stay: "stays on"}[j.After]
	if then == "" {
		then = "restarts"
	}
	switch p {
	case job.PhaseSeed:
		return "The system is installed. The machine helps the others and " + then + " when none needs it any more; you may switch it off."
	case job.PhaseReboot:
		return "The job is done; the machine " + then + "."
	case job.PhaseFrame, job.PhaseHash, job.PhaseContent, job.PhaseFree, job.PhaseVerify, job.PhaseTable, job.PhaseWipe:
		switch {
		case j.Kind.Swarms():
			return "Do not switch off: until this is done the disk starts no system."
		case j.Kind == job.WipeDisk:
			return "Do not switch off before the disk is wiped."
		}
		return "The disk is only read."
	case job.PhaseMap, job.PhaseRead:
		return "The disk is only read. Leave the machine on."
	}
	return ""
}

// showOver puts on the board that others ended the job, until the appliance answers what is next.
func (s *Screen) showOver(j job.Job, f *Failure) {
	s.stand(board.Board{Level: board.Waiting, Word: "stopped", Image: j.ImageName,
		Message: sentenceOf(f.Sentence) + ". The machine waits for another job; you may switch it off."})
}

// sentenceOf begins a sentence with a capital, and leaves out the dot at its end.
func sentenceOf(text string) string {
	text = strings.TrimSuffix(text, ".")
	if text == "" || text[0] >= utf8.RuneSelf {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// showFailure puts a failure on the board.
func (s *Screen) showFailure(j job.Job, f *Failure, todo string) { s.stand(failureBoard(j, f, todo)) }

func failureBoard(j job.Job, f *Failure, todo string) board.Board {
	return board.Board{Level: board.Failed, Word: "failed", Headline: headline(f.Code), Image: j.ImageName,
		Message: strings.TrimSuffix(f.Sentence, ".") + ". " + todo}
}
