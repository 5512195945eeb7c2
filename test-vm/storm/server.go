package storm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	script "seedbed/bootloader-configs"
)

// Server is what the clients boot from.
type Server interface {
	// start runs it in the server's namespace and returns when it answers. What it returns is stopped also after an error.
	start(ctx context.Context, n *network, files *Files, folder string) (*running, error)
}

// running is a server at work.
type running struct {
	processes []*process
	script    scriptCheck
}

// process is one of a server's, with its children.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it ended
	err  error         // read after done
}

// launch starts a program in a namespace; its output goes to a file in the folder. The kernel kills it when this process dies.
func launch(namespace, folder, name string, args ...string) (*process, error) {
	p := &process{name: filepath.Base(name), log: filepath.Join(folder, filepath.Base(name)+"-"+namespace+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command("ip", append([]string{"netns", "exec", namespace, name}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() { // on a thread that lives as long, see prctl(2), PR_SET_PDEATHSIG
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// stop asks the process to end; after 10 s it is killed.
func (p *process) stop() error {
	kill := time.AfterFunc(10*time.Second, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// failed says why the process ended, with the end of what it printed.
func (p *process) failed() error {
	b, _ := os.ReadFile(p.log)
	return fmt.Errorf("%s ended: %w: %s", p.name, p.err, b[max(0, len(b)-1000):])
}

// bound waits until sockets are bound in the namespace: "udp 67".
func (p *process) bound(ctx context.Context, namespace string, ports ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := ""
		for _, port := range ports {
			kind, number, _ := strings.Cut(port, " ")
			out, err := exec.CommandContext(ctx, "ip", "netns", "exec", namespace, "ss", "-Hln", "--"+kind, "sport = :"+number).Output()
			if err != nil || len(out) == 0 {
				missing = port
				break
			}
		}
		if missing == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return p.failed()
		case <-ctx.Done():
			return fmt.Errorf("%s did not open port %s: %w", p.name, missing, ctx.Err())
		}
	}
}

// stop ends all processes.
func (r *running) stop() (err error) {
	for _, p := range r.processes {
		err = errors.Join(err, p.stop())
	}
	return err
}

// pids are all processes of the server: what runs by itself and its children.
func (r *running) pids() (list []int) {
	for _, p := range r.processes {
		list = append(list, p.cmd.Process.Pid)
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.cmd.Process.Pid, p.cmd.Process.Pid))
		for _, c := range strings.Fields(string(children)) {
			if pid, err := strconv.Atoi(c); err == nil {
				list = append(list, pid)
			}
		}
	}
	return list
}

// clockTick is the unit of /proc/PID/stat (proc(5)); Linux tells user space 100 a second on every platform of ours.
const clockTick = 100

// cpu returns the seconds that the server has used.
func (r *running) cpu() (seconds float64, err error) {
	for _, pid := range r.pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("the server's CPU: %w", err)
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			return 0, fmt.Errorf("the server's CPU: %q", b)
		}
		for _, f := range fields[11:13] { // utime, stime
			ticks, _ := strconv.ParseFloat(f, 64)
			seconds += ticks / clockTick
		}
	}
	return seconds, nil
}

// memory returns the most that the server's processes held.
func (r *running) memory() (bytes int64, err error) {
	for _, pid := range r.pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, fmt.Errorf("the server's memory: %w", err)
		}
		_, rest, ok := strings.Cut(string(b), "VmHWM:")
		var kib int64
		if _, err := fmt.Sscan(rest, &kib); !ok || err != nil {
			return 0, fmt.Errorf("the server's memory: /proc/%d/status has no VmHWM", pid)
		}
		bytes += kib << 10
	}
	return bytes, nil
}

// startDHCP starts the DHCP server that gives addresses and knows nothing of booting. Each client has its own.
func startDHCP(ctx context.Context, n *network, folder string) (*process, error) {
	var hosts strings.Builder
	for k := range n.clients {
		i, j := k%len(n.rooms), k/len(n.rooms)
		mac := macOf(i, j)
		fmt.Fprintf(&hosts, "%s,10.76.%d.%d\n", net.HardwareAddr(mac[:]), 16+i, 1+j)
	}
	list := filepath.Join(folder, n.name+"-hosts")
	if err := os.WriteFile(list, []byte(hosts.String()), 0o644); err != nil {
		return nil, err
	}
	p, err := launch(n.dhcpNS(), folder, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--interface="+nic,
		"--bind-interfaces", "--except-interface=lo", "--dhcp-range=10.76.0.0,static,255.255.0.0,1h", "--dhcp-hostsfile="+list, "--leasefile-ro",
		"--dhcp-lease-max=5000", "--no-ping", "--dhcp-authoritative", "--quiet-dhcp", "--user=root", "--group=root")
	if err != nil {
		return nil, fmt.Errorf("%w (Debian: apt install dnsmasq-base)", err)
	}
	return p, p.bound(ctx, n.dhcpNS(), "udp 67")
}

// Seedbed is `seedbed serve`.
type Seedbed struct {
	// Program is the path of the program.
	Program string
	// Args are flags beyond those that it needs.
	Args []string
}

func (s Seedbed) start(ctx context.Context, n *network, files *Files, folder string) (*running, error) {
	data, err := os.MkdirTemp(folder, "appliance-")
	if err != nil {
		return nil, err
	}
	program, err := filepath.Abs(s.Program)
	if err != nil {
		return nil, err
	}
	p, err := launch(n.server(), folder, program, append([]string{"serve", "--data", data, "--boot-dir", files.Folder, "--interface", nic, "--admit", "ask"}, s.Args...)...)
	if err != nil {
		return nil, err
	}
	r := &running{processes: []*process{p}, script: func(text string, mac net.HardwareAddr, uefi bool) error {
		return sameScript(text, mac.String(), uefi)
	}}
	return r, p.bound(ctx, n.server(), "udp 67", "udp 4011", "udp 69", "tcp 80")
}

// sameScript compares a script with the one for a machine.
func sameScript(text, mac string, uefi bool) error {
	want, err := agentScript(mac, uefi)
	if err == nil && text != want {
		err = fmt.Errorf("its script is not that of %s: %q", mac, text[:min(len(text), 200)])
	}
	return err
}

// agentScript is the script that boots the agent.
func agentScript(mac string, uefi bool) (string, error) {
	name := script.IPXEAgent
	if uefi {
		name = script.GRUBAgent
	}
	return script.Render(name, script.Params{Server: netip.AddrPortFrom(serverAddr, portHTTP), MAC: mac, UEFI: uefi})
}

// Usual is what people use: dnsmasq as a proxy and for TFTP, nginx for HTTP. It serves the same files; scripts and tokens are
// files of the same length, the same ones for all.
type Usual struct{}

// anyMAC is the machine of the scripts that all get.
const anyMAC = "52:54:00:76:00:00"

func (Usual) start(ctx context.Context, n *network, files *Files, folder string) (*running, error) {
	root, err := os.MkdirTemp(folder, "usual-")
	if err == nil {
		err = errors.Join(os.Chmod(root, 0o755), usualFiles(root, files))
	}
	if err != nil {
		return nil, err
	}
	r := &running{script: func(text string, _ net.HardwareAddr, uefi bool) error { return sameScript(text, anyMAC, uefi) }}
	web, err := startNginx(n, root, folder)
	if err != nil {
		return r, err
	}
	r.processes = append(r.processes, web)
	if err := web.bound(ctx, n.server(), "tcp 80"); err != nil {
		return r, err
	}
	proxy, err := launch(n.server(), folder, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--interface="+nic,
		"--bind-interfaces", "--except-interface=lo", "--dhcp-range=10.76.0.0,proxy,255.255.0.0", "--quiet-dhcp", "--quiet-tftp",
		"--enable-tftp", "--tftp-root="+root, "--tftp-max=4096", "--dhcp-userclass=set:ipxe,iPXE",
		"--pxe-service=tag:!ipxe,x86PC,boot,undionly.kpxe", "--pxe-service=tag:!ipxe,X86-64_EFI,boot,shimx64.efi",
		fmt.Sprintf("--pxe-service=tag:ipxe,x86PC,boot,http://%s/boot.ipxe", serverAddr), "--user=root", "--group=root")
	if err != nil {
		return r, err
	}
	r.processes = append(r.processes, proxy)
	return r, proxy.bound(ctx, n.server(), "udp 67", "udp 69", "udp 4011")
}

// tokenLength is that of a token's archive in bytes.
const tokenLength = 1024

// usualFiles lays out what both programs serve.
func usualFiles(root string, files *Files) error {
	ipxe, err := agentScript(anyMAC, false)
	if err != nil {
		return err
	}
	grub, err := agentScript(anyMAC, true)
	if err != nil {
		return err
	}
	start, err := script.Render(script.GRUBStart, script.Params{Server: netip.AddrPortFrom(serverAddr, portHTTP)})
	if err != nil {
		return err
	}
	token := make([]byte, tokenLength)
	copy(token, "070701")
	copy(token[tokenLength-16:], "TRAILER!!!")
	for name, text := range map[string]string{"boot.ipxe": ipxe, "grub/machine.cfg": grub, "grub/grub.cfg": start, "boot/token": string(token)} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	for name, at := range map[string]string{"vmlinuz": "boot/vmlinuz", "initramfs.cpio.zst": "boot/initramfs",
		"undionly.kpxe": "undionly.kpxe", "shimx64.efi": "shimx64.efi", "grubx64.efi": "grubx64.efi"} {
		if err := os.Link(filepath.Join(files.Folder, name), filepath.Join(root, at)); err != nil {
			return err
		}
	}
	return nil
}

// nginxConf is set for many downloads: sendfile, open files kept, no log, a process for each core.
const nginxConf = `daemon off; user root; worker_processes auto; pid %[1]s/nginx.pid; error_log stderr warn;
events { worker_connections 4096; multi_accept on; }
http {
  sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_timeout 65; access_log off; default_type application/octet-stream;
  open_file_cache max=100 inactive=60s; server_tokens off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server { listen %[2]s:80 backlog=4096; root %[3]s; }
}
`

func startNginx(n *network, root, folder string) (*process, error) {
	own, err := os.MkdirTemp(folder, "nginx-")
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(own, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, own, serverAddr, root), 0o644); err != nil {
		return nil, err
	}
	p, err := launch(n.server(), folder, "nginx", "-c", conf)
	if err != nil {
		return nil, fmt.Errorf("%w (Debian: apt install nginx-light)", err)
	}
	return p, nil
}
