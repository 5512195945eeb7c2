package doctor

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holder is a program of this host that has a port, in the network namespace of who asks.
type Holder struct {
	Network string // "udp" or "tcp"
	Port    uint16
	Address netip.Addr // unspecified: all of the host's
	PID     int        // 0: who asks may not see whose it is
	Program string     // its short name, as /proc has it
	User    int        // ID of the user to whom the socket belongs
}

// String names a holder for people.
func (h Holder) String() string {
	if h.PID == 0 {
		return fmt.Sprintf("a program of the user with ID %d, which root can name", h.User)
	}
	return fmt.Sprintf("%s (pid %d)", h.Program, h.PID)
}

// Meets reports whether the holder keeps others from having the port at an address.
func (h Holder) Meets(a netip.Addr) bool {
	return !a.IsValid() || a.IsUnspecified() || h.Address.IsUnspecified() || h.Address == a
}

// tcpListens is TCP_LISTEN, as /proc/net/tcp has it (proc(5)); a UDP socket that is bound has the state 07.
const tcpListens = "0A"

// Holders returns who listens on any of the ports: one for each socket and process that has it open.
func Holders(ports ...uint16) ([]Holder, error) {
	sockets := map[string]Holder{} // by inode
	for _, table := range []string{"udp", "udp6", "tcp", "tcp6"} {
		err := readSockets(filepath.Join("/proc/self/net", table), func(inode string, h Holder, state string) {
			h.Network = table[:3]
			if slices.Contains(ports, h.Port) && (h.Network == "udp" || state == tcpListens) {
				sockets[inode] = h
			}
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
			return nil, fmt.Errorf("read which ports are open: %w", err)
		}
	}
	return named(sockets)
}

// readSockets reads a table of sockets of /proc/net.
func readSockets(path string, found func(inode string, h Holder, state string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan() // the header
	for lines.Scan() {
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode (proc(5))
		w := strings.Fields(lines.Text())
		if len(w) < 10 {
			continue
		}
		address, port, ok := strings.Cut(w[1], ":")
		number, err := strconv.ParseUint(port, 16, 16)
		at, valid := socketAddr(address)
		if !ok || err != nil || !valid {
			continue
		}
		user, _ := strconv.Atoi(w[7])
		found(w[9], Holder{Port: uint16(number), Address: at, User: user}, w[3])
	}
	return lines.Err()
}

// socketAddr reads an address of /proc/net: words of 32 bits, each as the processor has it.
func socketAddr(text string) (netip.Addr, bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, ok := netip.AddrFromSlice(b)
	return a.Unmap(), ok
}

// named finds the processes that have sockets open. Those of a socket whose process may not be seen come without one.
func named(sockets map[string]Holder) (list []Holder, err error) {
	if len(sockets) == 0 {
		return nil, nil
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("read which programs run: %w", err)
	}
	seen := map[string]bool{}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		for _, inode := range openSockets(pid) {
			if h, ok := sockets[inode]; ok {
				h.PID, h.Program = pid, programName(pid)
				list, seen[inode] = append(list, h), true
			}
		}
	}
	for inode, h := range sockets {
		if !seen[inode] {
			list = append(list, h)
		}
	}
	slices.SortFunc(list, func(a, b Holder) int { return a.PID - b.PID })
	return slices.Compact(list), nil
}

// openSockets returns the inodes of the sockets that a process has open, none where it may not be looked at or is gone.
func openSockets(pid int) (list []string) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, f := range files {
		target, err := os.Readlink(filepath.Join(dir, f.Name()))
		if inode, ok := strings.CutPrefix(target, "socket:["); err == nil && ok {
			list = append(list, strings.TrimSuffix(inode, "]"))
		}
	}
	return list
}

// programName is the short name of a process.
func programName(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "a program that has just ended"
	}
	return strings.TrimSpace(string(b))
}
