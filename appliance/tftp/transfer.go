package tftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// transfer sends one file. Owned by one goroutine.
type transfer struct {
	conn     *net.UDPConn
	file     io.ReadSeeker
	patience time.Duration // longest wait before a packet is sent again

	terms
	buf   []byte // blocks in flight with their headers, one after the other; all but the last are full
	count int    // of blocks in buf
	acked uint16 // number of the block that was acknowledged last; those in buf follow it
	ended bool   // buf has the last block of the file
	sent  int64  // bytes acknowledged
	whole bool   // the kernel cuts the blocks in flight: they are handed over at once
	// unsure says that the last exchange sent something twice: the machine may answer both, and the second answer looks as if
	// something were missing.
	unsure bool

	answer time.Duration // how long answers take, smoothed; 0 is not known yet
	packet [516]byte     // received
}

// errVanished says that the machine does not answer any more.
var errVanished = errors.New("the machine does not answer")

// run sends the file and returns nil when its last byte was acknowledged.
func (t *transfer) run(asked []option, limit int) error {
	length, err := t.file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = t.file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return t.fail(err)
	}
	t.terms = agree(asked, limit, length)
	if len(t.granted) > 0 {
		offer := packOptions(t.granted)
		if err := t.exchange(0, func() error { _, err := t.conn.Write(offer); return err }); err != nil {
			return err
		}
	}
	t.buf = make([]byte, 0, t.window*(blockHeader+t.block))
	t.cutByKernel()
	for {
		if err := t.fill(); err != nil {
			return t.fail(err)
		}
		if t.count == 0 {
			return nil
		}
		if err := t.exchange(t.count, t.send); err != nil {
			return err
		}
	}
}

// fail tells the machine that the file cannot be read on.
func (t *transfer) fail(err error) error {
	t.conn.Write(packError("the appliance cannot read this file"))
	return err
}

// fill reads blocks until as many are in flight as may be. The last one is shorter than the others, and may be empty.
func (t *transfer) fill() error {
	for t.count < t.window && !t.ended {
		at := len(t.buf)
		b := t.buf[at : at+blockHeader+t.block]
		n, err := io.ReadFull(t.file, b[blockHeader:])
		if t.ended = err == io.EOF || err == io.ErrUnexpectedEOF; err != nil && !t.ended {
			return err
		}
		t.count++
		binary.BigEndian.PutUint16(b, opData)
		binary.BigEndian.PutUint16(b[2:], t.acked+uint16(t.count))
		t.buf = t.buf[:at+blockHeader+n]
	}
	return nil
}

// cutByKernel lets the kernel or the network card cut what is written into packets of a block each.
func (t *transfer) cutByKernel() {
	t.whole = t.window > 1 && t.segment(blockHeader+t.block) == nil
}

// segment sets the length of the packets that a write is cut into (udp(7), UDP_SEGMENT); 0 cuts none.
func (t *transfer) segment(length int) error {
	raw, err := t.conn.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	err = raw.Control(func(fd uintptr) { refused = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, length) })
	return errors.Join(err, refused)
}

// send sends the blocks in flight.
func (t *transfer) send() error {
	if t.whole {
		_, err := t.conn.Write(t.buf)
		if err == nil || !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EMSGSIZE) {
			return err
		}
		t.whole = false // a card that cannot, or blocks of which no packet of the interface holds one
		if err := t.segment(0); err != nil {
			return err
		}
	}
	for b := t.buf; len(b) > 0; {
		n := min(len(b), blockHeader+t.block)
		if _, err := t.conn.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// exchange sends, and waits until the machine acknowledges one of count blocks, or, where count is 0, what it was granted. It
// sends again after a while, and at once where the machine says that the first of several blocks is missing; but not in two exchanges
// one after the other: each would be answered twice, and so on to the end of the file.
func (t *transfer) exchange(count int, send func() error) error {
	wait := t.firstWait()
	hurried, ignore := false, t.unsure
	t.unsure = false
	for try := range tries {
		if err := send(); err != nil {
			return err
		}
		began := time.Now()
		if err := t.conn.SetReadDeadline(began.Add(wait)); err != nil {
			return err
		}
		for {
			taken, again, err := t.receive(count)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if taken {
				if t.unsure = try > 0 || hurried; !t.unsure { // which of several packets was answered cannot be told (Karn)
					t.learn(time.Since(began))
				}
				return nil
			}
			if again && !hurried && !ignore {
				hurried = true
				if err := send(); err != nil {
					return err
				}
			}
		}
		wait = min(2*wait, t.patience)
	}
	return fmt.Errorf("%w: %d times nothing", errVanished, tries)
}

// firstWait is how long the first answer may take: four times what they took so far, and a quarter of the patience at least.
func (t *transfer) firstWait() time.Duration {
	if t.answer == 0 {
		return t.patience
	}
	return min(max(4*t.answer, t.patience/4), t.patience)
}

// learn smoothes how long answers take (RFC 6298 §2: 7/8 of what was known).
func (t *transfer) learn(took time.Duration) {
	if t.answer == 0 {
		t.answer = took
	}
	t.answer += (took - t.answer) / 8
}

// receive takes one packet. taken says that it acknowledges something new; again that the machine waits for the block after the one
// that it acknowledged before. With one block in flight that says nothing: answering it would double every packet from then on
// (RFC 1123 §4.2.3.1).
func (t *transfer) receive(count int) (taken, again bool, err error) {
	n, err := t.conn.Read(t.packet[:])
	if err != nil {
		return false, false, err
	}
	if n < 4 {
		return false, false, nil
	}
	switch binary.BigEndian.Uint16(t.packet[:]) {
	case opError:
		return false, false, parseError(t.packet[:n])
	case opAck:
		forward := int(binary.BigEndian.Uint16(t.packet[2:]) - t.acked)
		if count == 0 {
			return forward == 0, false, nil
		}
		if forward == 0 {
			return false, t.window > 1, nil
		}
		if forward <= count {
			t.advance(forward)
			return true, false, nil
		}
	}
	return false, false, nil
}

// advance drops acknowledged blocks from what is in flight.
func (t *transfer) advance(blocks int) {
	end := min(blocks*(blockHeader+t.block), len(t.buf))
	t.sent += int64(end - blocks*blockHeader)
	t.buf = t.buf[:copy(t.buf, t.buf[end:])]
	t.count -= blocks
	t.acked += uint16(blocks)
}
