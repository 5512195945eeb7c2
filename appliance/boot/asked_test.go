package boot

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

// What is asked for is told by its name, and a client that has to wait is told to.
func TestClientsThatAskTooOftenWait(t *testing.T) {
	var asked []string
	wait := time.Duration(0)
	b := newBench(t, Assignment{})
	b.cfg.Asked = func(client netip.Addr, what string) time.Duration {
		if client != machineAddr {
			t.Errorf("client %v", client)
		}
		asked = append(asked, what)
		return wait
	}
	get := func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "http://appliance"+path, nil)
		r.RemoteAddr = netip.AddrPortFrom(machineAddr, 40000).String()
		w := httptest.NewRecorder()
		b.Handler().ServeHTTP(w, r)
		return w
	}
	for _, c := range []struct{ path, want string }{
		{"/boot.ipxe?mac=52:54:00:77:00:10", AskedScript}, {"/grub/machine.cfg?mac=52:54:00:77:00:10", AskedScript}, {"//boot//token?mac=junk", AskedToken},
		{"/boot/vmlinuz", AskedKernel}, {"/boot/initramfs", AskedInitramfs}, {"/torrents/debian.torrent", AskedTorrent}, {"/announce", AskedTorrent},
		{"/525400770010/shimx64.efi", "shimx64.efi"}, {"/nonsense", "nonsense"},
	} {
		asked = nil
		get(c.path)
		if len(asked) != 1 || asked[0] != c.want {
			t.Errorf("%s: asked for %q", c.path, asked)
		}
	}
	wait = 1500 * time.Millisecond
	if w := get("/boot.ipxe"); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "2" {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
}
