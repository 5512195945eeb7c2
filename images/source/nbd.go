package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// A client of the Network Block Device protocol that can only read
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md). Numbers are big-endian.
const (
	nbdMagic       = 0x4e42444d41474943 // "NBDMAGIC"
	nbdOptionMagic = 0x49484156454f5054 // "IHAVEOPT"
	nbdReplyMagic  = 0x3e889045565a9
	nbdRequest     = 0x25609513
	nbdSimpleReply = 0x67446698

	nbdOptionGo   = 7
	nbdRepAck     = 1
	nbdRepInfo    = 3
	nbdInfoExport = 0
	nbdFixed      = 1 << 0 // handshake flag, both sides: fixed newstyle
	nbdNoZeroes   = 1 << 1
	nbdReadOnly   = 1 << 1 // transmission flag

	// nbdMaxRead is how much is asked for at once in bytes; servers take 32 MiB.
	nbdMaxRead = 4 << 20
	// nbdMaxReply bounds what a server may say of itself, in bytes.
	nbdMaxReply = 64 << 10
)

// nbdConn is one connection; one request at a time.
type nbdConn struct {
	net.Conn
	handle uint64
}

// dialNBD opens the default export of a server on a local socket and returns its length.
func dialNBD(socket string) (*nbdConn, int64, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, 0, err
	}
	c := &nbdConn{Conn: conn}
	length, err := c.negotiate()
	if err != nil {
		conn.Close()
		return nil, 0, fmt.Errorf("handshake with qemu-nbd: %w", err)
	}
	return c, length, nil
}

// negotiate asks for the default export ("").
func (c *nbdConn) negotiate() (length int64, err error) {
	var hello struct {
		Magic, Option uint64
		Flags         uint16
	}
	if err := binary.Read(c, be, &hello); err != nil {
		return 0, err
	}
	if hello.Magic != nbdMagic || hello.Option != nbdOptionMagic || hello.Flags&nbdFixed == 0 {
		return 0, errors.New("it does not speak the protocol")
	}
	b := be.AppendUint32(nil, uint32(nbdFixed|hello.Flags&nbdNoZeroes))
	b = be.AppendUint64(b, nbdOptionMagic)
	b = be.AppendUint32(b, nbdOptionGo)
	b = be.AppendUint32(b, 6)                                         // length of what follows:
	if _, err := c.Write(append(b, make([]byte, 6)...)); err != nil { // a name of no bytes, no requests for information
		return 0, err
	}
	for {
		var reply struct {
			Magic                uint64
			Option, Kind, Length uint32
		}
		if err := binary.Read(c, be, &reply); err != nil {
			return 0, err
		}
		if reply.Magic != nbdReplyMagic || reply.Option != nbdOptionGo || reply.Length > nbdMaxReply {
			return 0, errors.New("an answer that cannot be")
		}
		data := make([]byte, reply.Length)
		if _, err := io.ReadFull(c, data); err != nil {
			return 0, err
		}
		switch {
		case reply.Kind == nbdRepAck:
			return length, nil
		case reply.Kind == nbdRepInfo && len(data) == 12 && be.Uint16(data) == nbdInfoExport:
			if length = int64(be.Uint64(data[2:])); length < 0 || be.Uint16(data[10:])&nbdReadOnly == 0 {
				return 0, errors.New("it does not offer the disk read-only")
			}
		case reply.Kind != nbdRepInfo:
			return 0, fmt.Errorf("it refused with %#x: %.200q", reply.Kind, data)
		}
	}
}

// read fills b, of at most nbdMaxRead bytes. After an error of the connection, not of the disk, it cannot be used again.
func (c *nbdConn) read(b []byte, offset int64) error {
	c.handle++
	q := be.AppendUint32(make([]byte, 0, 28), nbdRequest)
	q = be.AppendUint32(q, 0) // flags, NBD_CMD_READ
	q = be.AppendUint64(q, c.handle)
	q = be.AppendUint64(q, uint64(offset))
	if _, err := c.Write(be.AppendUint32(q, uint32(len(b)))); err != nil {
		return err
	}
	reply := make([]byte, 16)
	if _, err := io.ReadFull(c, reply); err != nil {
		return err
	}
	if be.Uint32(reply) != nbdSimpleReply || be.Uint64(reply[8:]) != c.handle {
		return errors.New("an answer of qemu-nbd that cannot be")
	}
	if code := be.Uint32(reply[4:]); code != 0 {
		return nbdError(code)
	}
	_, err := io.ReadFull(c, b)
	return err
}

// nbdError is an error of the disk; the connection stays usable. The numbers are those of Linux.
type nbdError uint32

func (e nbdError) Error() string { return "qemu-nbd cannot read it: " + syscall.Errno(e).Error() }
