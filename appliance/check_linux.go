package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"seedbed/appliance/alert"
	"seedbed/appliance/boot"
	"seedbed/appliance/client"
	"seedbed/appliance/dhcp"
	"seedbed/appliance/site"
	"seedbed/appliance/store"
	"seedbed/appliance/tftp"
	"seedbed/images/repository"
)

// errCheck says that an appliance could not start.
var errCheck = errors.New("an appliance could not start like this")

// checkTimeout bounds how long each part of a check may take: storage and records may be far away, or gone.
const checkTimeout = 20 * time.Second

// checked is what `serve --check --json` prints.
type checked struct {
	Checks  []checkedPart `json:"checks"`
	InForce []inForce     `json:"in_force"`
}

// checkedPart is what one check found.
type checkedPart struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Text  string `json:"text"`
}

// check prints whether an appliance could start with this configuration, and what would be in force. It changes nothing.
func (o *options) check(cmd *cobra.Command, c config, log *slog.Logger, asJSON bool) error {
	r := &checking{ctx: cmd.Context(), out: cmd.OutOrStdout(), c: c, log: log, at: func(err error) error { return o.located(cmd, err) }}
	if asJSON {
		r.out = io.Discard
	}
	if o.file != nil {
		r.say("configuration", o.file.Path, nil)
	}
	r.all()
	if r.err != nil {
		return r.err
	}
	fmt.Fprint(r.out, "\n# in force:\n")
	err := o.printInForce(r.out, cmd.Root())
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), checked{r.found, o.inForce(cmd.Root())})
	}
	if err != nil {
		return err
	}
	if r.wrong > 0 {
		return usageError{fmt.Errorf("%w: %d of %d checks found something wrong", errCheck, r.wrong, len(r.found))}
	}
	return nil
}

// checking is a check at work.
type checking struct {
	ctx   context.Context
	out   io.Writer
	c     config
	log   *slog.Logger
	at    func(error) error // says where in the configuration an error comes from
	found []checkedPart
	wrong int   // of found
	err   error // of out
	runs  bool  // an appliance runs here
	// told hears what was found in the place of out; nil: out does.
	told func(what, sentence string, err error)
}

// say prints what one check found.
func (r *checking) say(what, sentence string, err error) {
	if r.told != nil {
		r.told(what, sentence, err)
		return
	}
	verdict := "ok"
	if err != nil {
		verdict, sentence = "WRONG", r.at(err).Error()
		r.wrong++
	}
	r.found = append(r.found, checkedPart{what, err == nil, sentence})
	if _, err := fmt.Fprintf(r.out, "%-6s %-14s %s\n", verdict, what, strings.ReplaceAll(sentence, "\n", "\n"+strings.Repeat(" ", 22))); err != nil && r.err == nil {
		r.err = err
	}
}

func (r *checking) all() {
	c := &r.c
	if here, err := client.New(client.Config{Socket: filepath.Join(c.Data, "seedbed.sock")}); err == nil {
		r.runs = here.Running(r.ctx)
		here.Close()
	}
	r.data()
	address, err := ownAddress(*c)
	r.say("address", address.String(), err)
	r.topology()
	r.certificate()
	r.alerts()
	r.records()
	r.repository()
	if !c.NoBoot {
		_, err := boot.OpenFiles(or(c.BootDir, filepath.Join(c.Data, "boot")))
		r.say("boot files", or(c.BootDir, filepath.Join(c.Data, "boot")), err)
	}
	r.ports(address.String())
}

func (r *checking) data() {
	dir := r.c.Data
	if path := filepath.Join(dir, "seedbed.sock"); len(path) > maxSocketPath {
		r.say("data", "", fmt.Errorf("--data: the local socket %s has a path of %d bytes, of which Linux takes %d", path, len(path), maxSocketPath))
		return
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = writable(existing(dir))
		r.say("data", dir+" is not there yet and is made at the first start", err)
		return
	case err == nil && !info.IsDir():
		err = fmt.Errorf("--data: %s is no directory", dir)
	case err == nil && info.Mode().Perm()&0o077 != 0:
		err = fmt.Errorf("--data: %s may be read by others (mode %04o), and holds the site's keys; `chmod 700 %s`", dir, info.Mode().Perm(), dir)
	case err == nil:
		err = writable(dir)
	}
	r.say("data", dir, err)
	if err != nil {
		return
	}
	if _, err := os.Stat(filepath.Join(dir, "site", "ca.crt")); errors.Is(err, fs.ErrNotExist) {
		r.say("identity", "is made at the first start", nil)
		return
	}
	s, err := site.Open(filepath.Join(dir, "site"))
	if err != nil {
		r.say("identity", "", err)
		return
	}
	r.say("identity", s.Fingerprint().String(), nil)
}

// existing returns the nearest folder above a path that is there.
func existing(path string) string {
	for {
		path = filepath.Dir(path)
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
	}
}

func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("nothing can be written in %s: %w", dir, err)
	}
	return nil
}

func (r *checking) topology() {
	p, err := readTopology(r.c.Topology)
	switch {
	case err != nil:
		r.say("topology", "", err)
	case r.c.Topology == "":
		r.say("topology", "none: all machines are one group", nil)
	default:
		r.say("topology", fmt.Sprintf("%s, %d groups", r.c.Topology, len(p.Groups)), nil)
	}
}

func (r *checking) certificate() {
	own, err := openOwnCertificate(r.c.TLSCert, r.c.TLSKey, r.log)
	switch {
	case err != nil:
		r.say("certificate", "", err)
	case own == nil:
		r.say("certificate", "the site's own", nil)
	default:
		leaf := own.config.Load().Certificates[0].Leaf
		r.say("certificate", fmt.Sprintf("for %s until %s", strings.Join(leaf.DNSNames, " "), leaf.NotAfter.Format(time.RFC3339)), nil)
	}
}

// alerts looks at the files that messages about alerts need.
func (r *checking) alerts() {
	secrets := alert.Secrets{MailPassword: r.c.MailPassword, WebhookSecret: r.c.WebhookSecret, CA: r.c.AlertCA}
	if secrets != (alert.Secrets{}) {
		r.say("alerts", "password, secret and authorities are there", secrets.Check())
	}
}

func (r *checking) records() {
	ctx, cancel := context.WithTimeout(r.ctx, checkTimeout)
	defer cancel()
	location, err := recordsWith(r.c.Data, r.c.Records, r.c.RecordsPassword)
	var sentence string
	if err == nil {
		if sentence, err = store.Check(ctx, location); err != nil {
			err = fmt.Errorf("--store: %w", err)
		}
	}
	r.say("records", sentence, err)
}

func (r *checking) repository() {
	ctx, cancel := context.WithTimeout(r.ctx, checkTimeout)
	defer cancel()
	location := or(r.c.Repository, filepath.Join(r.c.Data, "repository"))
	if strings.HasPrefix(location, "s3://") {
		shown := withoutPassword(location)
		b, closeBucket, err := openBucket(ctx, r.c.Data, location)
		if err == nil {
			err = errors.Join(probe(ctx, b), closeBucket())
		}
		if err != nil {
			err = fmt.Errorf("--repository: %w", err)
		}
		r.say("repository", shown, err)
		return
	}
	info, err := os.Stat(location)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.say("repository", location+" is not there yet and is made at the first start", writable(existing(location)))
		return
	case err == nil && !info.IsDir():
		err = errors.New("it is no folder")
	case err == nil:
		err = writable(location)
	}
	if err != nil {
		r.say("repository", "", fmt.Errorf("--repository: %s: %w", location, err))
		return
	}
	free, total, err := repository.RoomIn(location)
	r.say("repository", fmt.Sprintf("%s, %s of %s free", location, bytesText(free), bytesText(total)), err)
}

// ports opens each port for a moment.
func (r *checking) ports(address string) {
	c := r.c
	at := func(listen string) string {
		if c.Interface != "" && strings.HasPrefix(listen, ":") {
			return address + listen
		}
		return listen
	}
	r.port("--https", "tcp", at(or(c.HTTPS, ":443")), false)
	r.port("--swarm", "tcp", at(or(c.Swarm, ":6881")), false)
	if c.NoBoot {
		return
	}
	r.port("--http", "tcp", at(or(c.HTTP, ":80")), false)
	r.port("TFTP", "udp4", at(fmt.Sprintf(":%d", tftp.Port)), false)
	if c.NoDHCP {
		return
	}
	for _, port := range []int{dhcp.PortServer, dhcp.PortProxy} {
		r.port("DHCP", "udp4", fmt.Sprintf(":%d", port), true)
	}
}

// port opens one port; shared ones may be another program's too.
func (r *checking) port(what, network, address string, shared bool) {
	listen := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		if shared {
			return conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		}
		return nil
	}}
	var opened io.Closer
	var err error
	if network == "tcp" {
		opened, err = listen.Listen(r.ctx, network, address)
	} else {
		opened, err = listen.ListenPacket(r.ctx, network, address)
	}
	sentence := network[:3] + " " + address
	switch {
	case err == nil:
		err = opened.Close()
	case errors.Is(err, unix.EADDRINUSE) && r.runs:
		sentence, err = sentence+", in use by the appliance that runs here", nil
	case errors.Is(err, unix.EADDRINUSE):
		err = fmt.Errorf("%s: another program has the port; `ss -lnp` names it: %w", what, err)
	case errors.Is(err, unix.EACCES):
		err = fmt.Errorf("%s: ports below 1024 need root or the capability CAP_NET_BIND_SERVICE: %w", what, err)
	default:
		err = fmt.Errorf("%s: %w", what, err)
	}
	r.say("port", sentence, err)
}
