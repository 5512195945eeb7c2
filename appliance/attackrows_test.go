//go:build linux

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"

	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/swarm"
	"seedbed/images/trust"
)

// machines are the attacks on what belongs to machines, over HTTPS.
func (s *siege) machines() []attack {
	v, f, x := s.victim, s.fellow, s.stranger
	nobody := &machine{t: s.t, boot: v.boot, client: s.web}
	manifest := job.PathManifest + v.job.Image.String()
	layer := job.PathLayer + s.layer(v)
	fetch := func(path string, header ...string) func(*machine) string {
		return func(m *machine) string { return s.by(m, "GET", path, nil, header...) }
	}
	report := func(m *machine) string {
		return s.by(m, "POST", job.PathReport, job.Report{Job: v.job.ID, Epoch: v.job.Epoch, Phase: job.PhaseContent, State: job.Running})
	}
	frame := func(m *machine) string { return s.by(m, "POST", job.PathFrame, frameOf(s, v.job.ID)) }
	row := func(name string, fn func(*machine) string, attacker *machine, want, rightly string) attack {
		return attack{name, func() string { return fn(attacker) }, want, func() string { return fn(v) }, rightly}
	}
	list := []attack{
		row("a manifest without a certificate", fetch(manifest), nobody, "401 unauthorised", "200"),
		row("a manifest by a machine that nobody admitted", fetch(manifest), x, "404 image-unknown", "200"),
		row("a manifest by a machine with another image", fetch(manifest), f, "404 image-unknown", "200"),
		row("a layer by a machine that nobody admitted", fetch(layer), x, "404 image-unknown", "200"),
		row("a part of a layer by a machine that nobody admitted", fetch(layer, "Range", "bytes=0-3"), x, "404 image-unknown", "206"),
		row("a layer by a machine with another image", fetch(layer), f, "404 image-unknown", "200"),
		row("a manifest by a certificate that signed itself", fetch(manifest), s.holding(selfMade(s.t, job.URIJob+v.job.ID, swarm.InfoHashURI(v.job.InfoHash))), "no answer", "200"),
		row("a manifest by a certificate that has expired", fetch(manifest), s.holding(issued(s.t, s.data, v, time.Now().Add(-73*time.Hour), job.URIMachine+v.me.Machine)), "no answer", "200"),
		row("a manifest by a certificate for a key that no boot has", fetch(manifest), s.holding(issued(s.t, s.data, &machine{key: s.newKey()}, time.Now(), job.URIMachine+v.me.Machine)), "401 unauthorised", "200"),
		row("a report for another machine's job", report, f, "404 job-unknown", "200"),
		row("a report by a machine that nobody admitted", report, x, "404 job-unknown", "200"),
		row("a report with the certificate of a guest", report, s.guest, "401 unauthorised", "200"),
		row("a saved table for another machine's job", frame, f, "404 job-unknown", "204"),
		row("a saved table by a machine that nobody admitted", frame, x, "404 job-unknown", "204"),
		{"a report of an earlier claim", func() string {
			return s.by(v, "POST", job.PathReport, job.Report{Job: v.job.ID, Epoch: v.job.Epoch + 7, Phase: job.PhaseContent, State: job.Running})
		}, "409 claim-lost", func() string { return report(v) }, "200"},
		{"a claim in another machine's name", func() string { return s.by(x, "POST", job.PathClaim, job.Claim{Machine: v.me.Machine}) }, "404 machine-unknown",
			func() string {
				answer, b, _ := knocked(v.client, "POST", s.base+job.PathClaim, encode(job.Claim{Machine: v.me.Machine}))
				if err := json.Unmarshal(b, &v.job); err != nil {
					return err.Error()
				}
				return answer
			}, "200"},
		{"a receipt for another machine's job", func() string { return s.by(f, "POST", job.PathReceipt, s.receipt(f, v.job.ID, v.me.Machine)) }, "404 job-unknown",
			func() string { return s.by(v, "POST", job.PathReceipt, s.receipt(v, v.job.ID, v.me.Machine)) }, "422 receipt-wrong"}, // its roots are no image's
		{"a receipt signed with another key", func() string { return s.by(v, "POST", job.PathReceipt, s.receipt(f, v.job.ID, v.me.Machine)) }, "422 receipt-wrong",
			func() string {
				return s.by(v, "POST", job.PathReport, job.Report{Job: v.job.ID, Epoch: v.job.Epoch, State: job.Running})
			}, "200"},
		{"a guest asks for an image that its token does not name", func() string { return s.by(s.guest, "GET", job.PathManifest+f.job.Image.String(), nil) }, "404 image-unknown",
			func() string { return s.by(s.guest, "GET", manifest, nil) }, "200"},
		{"a guest who may fetch passes for a seed node", func() string { return s.by(s.guest, "POST", job.PathNode, job.NodeReport{Name: "x", Port: 1}) }, "401 unauthorised",
			func() string { return s.by(s.guest, "GET", manifest, nil) }, "200"},
	}
	return append(list, s.uploads()...)
}

// layer is the digest of one of the layers of a machine's image.
func (s *siege) layer(m *machine) string {
	_, b, _ := knocked(m.client, "GET", s.base+job.PathManifest+m.job.Image.String(), nil)
	manifest, err := images.DecodeManifest(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return manifest.Partitions[0].TileLayer.Digest.String()
}

// holding is a machine with a certificate.
func (s *siege) holding(c *tls.Certificate) *machine {
	return &machine{t: s.t, client: from(s.t, "10.77.0.66", c)}
}

func frameOf(s *siege, id string) []byte {
	b, err := cbor.Marshal(job.OldFrame{Job: id, Disk: "vda", DiskLength: 1 << 30})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *siege) receipt(signer *machine, id, of string) job.SignedReceipt {
	b := encode(job.Receipt{Job: id, Machine: of, Image: s.victim.job.Image, At: time.Now()})
	sum := sha256.Sum256(b)
	sig, err := ecdsa.SignASN1(rand.Reader, signer.key, sum[:])
	if err != nil {
		s.t.Fatal(err)
	}
	return job.SignedReceipt{Receipt: b, Signature: sig}
}

// uploads are the attacks on an image that a machine captures.
func (s *siege) uploads() []attack {
	m := &machine{t: s.t, mac: "52:54:00:77:00:12", own: "10.77.0.12"}
	m.bootAgent()
	m.hello()
	must(s.t, s.data, "machine", "admit", m.me.Code)
	must(s.t, s.data, "capture", m.mac, "--name", "shot")
	m.post(job.PathClaim, job.Claim{Machine: m.me.Machine}, &m.job)
	var session job.CaptureSession
	begin := func(who *machine) string {
		answer, b, _ := knocked(who.client, "POST", s.base+job.PathCaptures, encode(job.CaptureBegin{Job: m.job.ID, Epoch: m.job.Epoch}))
		if who == m {
			if err := json.Unmarshal(b, &session); err != nil {
				return err.Error()
			}
		}
		return answer
	}
	at := func(verb string) string { return job.PathCaptures + "/" + session.ID + verb }
	have := func(who *machine) string { return s.by(who, "POST", at(job.PathCaptureHave), nil) }
	end := func(who *machine) string { return s.by(who, "DELETE", at(""), nil) }
	return []attack{
		{"an upload for another machine's job", func() string { return begin(s.stranger) }, "404 job-unknown", func() string { return begin(m) }, "200"},
		{"a look into another machine's upload", func() string { return have(s.fellow) }, "404 job-unknown", func() string { return have(m) }, "200"},
		{"the end of another machine's upload", func() string { return end(s.fellow) }, "404 job-unknown", func() string { return end(m) }, "204"},
	}
}

// swarms are the attacks on the content: the swarm's port, the tracker and the torrents.
func (s *siege) swarms() []attack {
	v, f, x := s.victim, s.fellow, s.stranger
	own, h := certificateOf(v, v.job.Certificate), v.job.InfoHash
	robbed := s.worker("52:54:00:77:00:1b", "10.77.0.27", "debian")
	s.steal(robbed)
	in := func() string { return peers(h, own) }
	row := func(name string, c *tls.Certificate) attack {
		return attack{name, func() string { return peers(h, c) }, "out", in, "in"}
	}
	told := func(m *machine, path string) string { return knock(m.client, "GET", s.base+path, nil) }
	return []attack{
		row("the swarm without a certificate", nil),
		row("the swarm by a machine that nobody admitted", certificateOf(x, x.welcome.Certificate)),
		row("the swarm by the certificate of another job", certificateOf(f, f.job.Certificate)),
		row("the swarm by the certificate of the boot, before the job", certificateOf(v, v.welcome.Certificate)),
		row("the swarm by the certificate of a job whose boot token was used twice", certificateOf(robbed, robbed.job.Certificate)),
		row("the swarm by a certificate that signed itself", selfMade(s.t, swarm.InfoHashURI(h))),
		row("the swarm by a certificate that has expired", issued(s.t, s.data, v, time.Now().Add(-73*time.Hour), swarm.InfoHashURI(h))),
		{"another swarm by the certificate of this one", func() string { return peers(f.job.InfoHash, own) }, "out", in, "in"},
		{"addresses of a swarm by a machine that nobody admitted", func() string { return told(x, announces(h, 7001, "")) }, "403", func() string { return told(v, announces(h, 7002, "")) }, "200"},
		{"addresses of a swarm by a machine of another", func() string { return told(f, announces(h, 7004, "")) }, "403", func() string { return told(f, announces(f.job.InfoHash, 7004, "")) }, "200"},
		{"addresses of a swarm by a machine whose boot token was used twice", func() string { return told(robbed, announces(h, 7007, "")) }, "403", func() string { return told(v, announces(h, 7002, "")) }, "200"},
		{"addresses of a closed swarm over plain HTTP", func() string {
			_, b, _ := knocked(s.web, "GET", "http://"+applianceAddr+announces(h, 7001, ""), nil)
			return failureOf(b)
		}, "failure", func() string {
			_, b, _ := knocked(v.client, "GET", s.base+announces(h, 7002, ""), nil)
			return failureOf(b)
		}, "peers"},
		{"sources of an image by a machine that nobody admitted", func() string { return told(x, sources(h, true)) }, "403", func() string { return told(v, sources(h, true)) }, "200"},
		{"other peers are sent to a third one", func() string {
			told(v, announces(h, 7003, "&ip=10.77.0.99&ipv4=10.77.0.99"))
			_, b, _ := knocked(v.client, "GET", s.base+announces(h, 7005, ""), nil)
			return found(b, "10.77.0.99")
		}, "absent", func() string {
			_, b, _ := knocked(v.client, "GET", s.base+announces(h, 7006, ""), nil)
			return found(b, applianceAddr)
		}, "present"},
		{"the torrent of a closed image", func() string { return knock(s.web, "GET", "http://"+applianceAddr+"/torrents/debian-1.torrent", nil) }, "404",
			func() string {
				if must(s.t, s.data, "image", "open", "other"); knock(s.web, "GET", "http://"+applianceAddr+"/torrents/other-1.torrent", nil) == "200" {
					return "200"
				}
				return must(s.t, s.data, "image", "show", "other")
			}, "200"},
	}
}

func sources(h images.InfoHash, held bool) string {
	return job.PathSources + "?" + announce.SourcesRequest{InfoHash: h.Wire(), Port: 7000, Held: held, Length: 1 << 20}.Query()
}

func failureOf(b []byte) string {
	if bytes.Contains(b, []byte("failure reason")) {
		return "failure"
	}
	return "peers"
}

// found says whether an answer of the tracker names an address.
func found(b []byte, address string) string {
	r, err := announce.DecodeResponse(b)
	if err != nil {
		return err.Error()
	}
	for _, p := range r.Peers {
		if p.Addr().String() == address {
			return "present"
		}
	}
	return "absent"
}

// boots are the attacks on the way from the firmware to the agent.
func (s *siege) boots() []attack {
	sacrifice := &machine{t: s.t, mac: "52:54:00:77:00:13", own: "10.77.0.13"}
	sacrifice.bootAgent()
	sacrifice.hello()
	second := &machine{t: s.t, mac: "52:54:00:77:00:14", own: "10.77.0.14"}
	second.bootAgent()
	hello := func(token, mac string, m *machine) string {
		return knock(s.web, "POST", s.base+job.PathHello, encode(job.Hello{Token: token, MAC: mac, PublicKey: s.public(m)}))
	}
	thief := &machine{t: s.t, key: s.newKey()}
	honest := &machine{t: s.t, key: s.newKey()}
	token := func(mac, addr string) string {
		return knock(from(s.t, addr, nil), "GET", "http://"+applianceAddr+"/boot/token?mac="+mac, nil)
	}
	again := func() string { return hello(s.victim.boot.Token, s.victim.boot.MAC, s.victim) }
	list := []attack{
		{"a boot token that nobody gave", func() string { return hello(strings.Repeat("ab", 32), second.mac, thief) }, "403 token-unknown", again, "200"},
		{"a boot token of another machine", func() string { return hello(second.boot.Token, s.stranger.mac, thief) }, "403 token-unknown",
			func() string { return hello(second.boot.Token, second.mac, honest) }, "200"},
		{"a boot token that is too old", func() string { return hello(s.late.boot.Token, s.late.mac, thief) }, "403 token-unknown",
			func() string { return hello(second.boot.Token, second.mac, honest) }, "200"},
		{"a boot token that is used again with another key", func() string { return hello(sacrifice.boot.Token, sacrifice.mac, thief) }, "403 token-used", again, "200"},
		{"the certificate of a boot whose token was used twice", func() string { return s.by(sacrifice, "POST", job.PathInventory, job.Inventory{Serial: "x"}) }, "403 revoked",
			func() string { return s.by(s.stranger, "POST", job.PathInventory, inventoryOf(s.stranger)) }, "200"},
		{"the key of another boot", func() string {
			third := &machine{t: s.t, mac: "52:54:00:77:00:15", own: "10.77.0.15"}
			third.bootAgent()
			return hello(third.boot.Token, third.mac, s.victim)
		}, "400 invalid", again, "200"},
		{"a boot token that a later script replaced", func() string {
			fourth := &machine{t: s.t, mac: "52:54:00:77:00:16", own: "10.77.0.16"}
			fourth.bootAgent()
			old := fourth.boot.Token
			fourth.bootAgent()
			return hello(old, fourth.mac, thief)
		}, "403 revoked", again, "200"},
		{"a boot token for another address than that of the DHCP exchange", func() string { return token(second.mac, "10.77.0.66") }, "403",
			func() string { return token(second.mac, second.own) }, "200"},
		{"a boot token without a DHCP exchange", func() string { return token("52:54:00:77:00:aa", "10.77.0.66") }, "403",
			func() string { return token(second.mac, second.own) }, "200"},
		{"an agent whose clock says 2001 takes an impostor for the appliance", func() string { return s.pinned(selfMade(s.t), s.victim) }, "not the site",
			func() string { return s.pinned(nil, s.victim) }, "the appliance"},
		{"a machine passes for the appliance", func() string {
			return s.pinned(certificateOf(s.stranger, s.stranger.welcome.Certificate), s.victim)
		}, "not the site", func() string { return s.pinned(nil, s.victim) }, "the appliance"},
		{"a script with lines of the attacker's", func() string {
			_, b, _ := knocked(s.web, "GET", "http://"+applianceAddr+"/boot.ipxe?mac=52:54:00:77:00:10%0aecho%20owned&platform=efi%0aecho%20owned", nil)
			return contains(b, "owned")
		}, "without", func() string {
			_, b, _ := knocked(from(s.t, machineAddr, nil), "GET", "http://"+applianceAddr+"/boot.ipxe?mac="+testMAC, nil)
			return contains(b, "52:54:00:77:00:10")
		}, "with"},
		{"a script that sends machines to another host", func() string {
			_, b := raw(plainPort, "GET /boot.ipxe?mac="+testMAC+" HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\nConnection: close\r\n\r\n")
			return contains(b, "evil")
		}, "without", func() string {
			_, b := raw(plainPort, "GET /boot.ipxe?mac="+testMAC+" HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
			return contains(b, applianceAddr)
		}, "with"},
	}
	return list
}

func contains(b []byte, what string) string {
	if bytes.Contains(b, []byte(what)) {
		return "with"
	}
	return "without"
}

func inventoryOf(m *machine) job.Inventory {
	return job.Inventory{Firmware: "bios", Serial: "SN77" + m.mac, NICs: []job.NIC{{MAC: m.boot.MAC}}}
}

// pinned says whom an agent whose clock says 2001 takes a server for: the appliance, or where cert is not nil one that shows it
// and the site's authority behind it, which is no secret.
func (s *siege) pinned(cert *tls.Certificate, m *machine) string {
	address := applianceAddr + ":443"
	if cert != nil {
		chain := tls.Certificate{Certificate: [][]byte{cert.Certificate[0], m.welcome.CA}, PrivateKey: cert.PrivateKey}
		l, err := tls.Listen("tcp", "10.77.0.66:0", &tls.Config{Certificates: []tls.Certificate{chain}})
		if err != nil {
			s.t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if c, err := l.Accept(); err == nil {
				c.(*tls.Conn).Handshake()
				c.Close()
			}
		}()
		address = l.Addr().String()
	}
	long := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, Time: func() time.Time { return long },
		VerifyConnection: func(cs tls.ConnectionState) error {
			return trust.Appliance(cs, m.boot.Fingerprint, long, job.URIMachine, job.URIJob)
		}})
	if err != nil {
		return "not the site"
	}
	conn.Close()
	return "the appliance"
}

// people are the attacks on what people may do.
func (s *siege) people() []attack {
	token := func(t, method, path string, body any) func() string {
		return func() string { return s.bearer(t, method, path, body) }
	}
	makes := func(t string) func() string { return func() string { return s.bearer(t, "POST", "/groups", group()) } }
	deploy := func(who, machine string) func() string {
		return token(who, "POST", "/deployments", api.Order{Order: fleet.Order{Image: "debian", Machines: []string{machine}}})
	}
	role, secret := fleet.RoleViewer, "another long password"
	user := fleet.UserOrder{Name: "eve", Role: &role, Password: &secret}
	cookie := func(csrf string, header ...string) func() string {
		return func() string { return s.with(s.cookie, csrf, "POST", "/groups", group(), header...) }
	}
	ours := cookie(s.csrf)
	gone, goneCSRF := s.login("olaf")
	if got := s.with(gone, goneCSRF, "POST", "/logout", nil); got != "204" {
		s.t.Fatalf("logout: %s", got)
	}
	local := func(uid uint32) string {
		cmd := exec.Command("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", filepath.Join(s.data, "seedbed.sock"), "http://seedbed/api/v1/machines")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.Output()
		if err != nil {
			return "no connection"
		}
		return string(out)
	}
	return []attack{
		{"a viewer deploys", deploy(s.viewer, "spare1"), "403 forbidden", deploy(s.operator, "spare1"), "201"},
		{"a viewer admits a machine", token(s.viewer, "POST", "/machines/"+s.stranger.me.Machine+"/admit", nil), "403 forbidden", token(s.viewer, "GET", "/machines/"+s.stranger.me.Machine, nil), "200"},
		{"a viewer makes a group", makes(s.viewer), "403 forbidden", makes(s.operator), "201"},
		{"a viewer reads an image's content", token(s.viewer, "GET", "/images/debian/disk", nil), "403 forbidden", token(s.operator, "GET", "/images/debian/disk", nil), "200"},
		{"an operator makes a user", token(s.operator, "POST", "/users", user), "403 forbidden", token(s.admin, "POST", "/users", user), "201"},
		{"an operator makes a token for guests", token(s.operator, "POST", "/tokens", api.TokenOrder{TokenOrder: fleet.TokenOrder{Role: job.RoleGet}}), "403 forbidden",
			token(s.admin, "POST", "/tokens", api.TokenOrder{TokenOrder: fleet.TokenOrder{Role: job.RoleGet, Uses: 1}}), "201"},
		{"an operator removes an image", token(s.operator, "DELETE", "/images/debian:1", nil), "403 forbidden", token(s.operator, "GET", "/images/debian:1", nil), "200"},
		{"a token beyond its scope", makes(s.scoped), "403 forbidden", makes(s.admin), "201"},
		{"a token after its expiry", makes(s.expired), "401 unauthorised", makes(s.operator), "201"},
		{"a token that was revoked", makes(s.revoked), "401 unauthorised", makes(s.operator), "201"},
		{"a token with another secret", makes(s.operator[:len(s.operator)-4] + "0000"), "401 unauthorised", makes(s.operator), "201"},
		{"a token in the address", token("", "GET", "/machines?access_token="+s.operator+"&token="+s.operator, nil), "401 unauthorised", token(s.operator, "GET", "/machines", nil), "200"},
		{"a token makes another", token(s.admin, "POST", "/keys", api.KeyOrder{KeyOrder: fleet.KeyOrder{Name: "more"}}), "403 forbidden",
			func() string {
				return s.with(s.cookie, s.csrf, "POST", "/keys", api.KeyOrder{KeyOrder: fleet.KeyOrder{Name: "more"}})
			}, "201"},
		{"an administrator elsewhere reads files of the appliance's host", token(s.admin, "POST", "/images", api.ImageOrder{Path: "/etc/shadow", Name: "x"}), "403 forbidden",
			func() string {
				_, code := seedbed(s.t, s.data, "image", "add", "/nowhere", "--name", "x")
				return strconv.Itoa(code)
			}, "4"},
		{"an image from an address inside the site", token(s.admin, "POST", "/images", api.ImageOrder{Path: "http://127.0.0.1/metrics", Name: "x"}), "403 forbidden",
			token(s.admin, "GET", "/images", nil), "200"},
		{"a name in a header of a proxy", func() string {
			return knock(s.web, "GET", s.base+"/api/v1/machines", nil, "X-Remote-User", "anna", "X-Forwarded-User", "anna", "X-Forwarded-For", "127.0.0.1")
		}, "401 unauthorised", token(s.viewer, "GET", "/machines", nil), "200"},
		{"figures with an address in a header", func() string { return knock(s.web, "GET", s.base+"/metrics", nil, "X-Forwarded-For", "127.0.0.1") }, "401 unauthorised",
			func() string { return knock(from(s.t, "127.0.0.1", nil), "GET", "https://127.0.0.1/metrics", nil) }, "200"},
		{"a session that the attacker chose", func() string {
			fixed := strings.Repeat("ab", 32)
			_, _, h := knocked(s.web, "POST", s.base+"/api/v1/login", encode(api.Login{Name: "olaf", Password: siegePassword}), "Cookie", api.CookieName+"="+fixed)
			if strings.Contains(h.Get("Set-Cookie"), fixed) {
				return "taken"
			}
			return s.with(fixed, "", "GET", "/me", nil)
		}, "401 unauthorised", func() string { return s.with(s.cookie, "", "GET", "/me", nil) }, "200"},
		{"a session after its end", func() string { return s.with(gone, goneCSRF, "POST", "/groups", group()) }, "401 unauthorised", ours, "201"},
		{"a session after its expiry", func() string { return s.with(s.stale, "", "GET", "/me", nil) }, "401 unauthorised", func() string { return s.with(s.cookie, "", "GET", "/me", nil) }, "200"},
		{"a change from another page without the word", cookie(""), "403 forbidden", ours, "201"},
		{"a change with the word of another login", cookie(goneCSRF), "403 forbidden", ours, "201"},
		{"a change from a page of another origin", cookie(s.csrf, "Origin", "https://evil.example"), "403 forbidden", cookie(s.csrf, "Origin", s.base), "201"},
		{"a change from a page without an origin", cookie(s.csrf, "Origin", "null"), "403 forbidden", cookie(s.csrf, "Sec-Fetch-Site", "same-origin"), "201"},
		{"a change from a page of another site", cookie(s.csrf, "Sec-Fetch-Site", "cross-site"), "403 forbidden", ours, "201"},
		{"a form that any page may send", cookie("", "Content-Type", "text/plain"), "403 forbidden", ours, "201"},
		{"a login from a page of another site", func() string {
			return knock(s.web, "POST", s.base+"/api/v1/login", encode(api.Login{Name: "olaf", Password: siegePassword}), "Sec-Fetch-Site", "cross-site")
		}, "403 forbidden", func() string {
			return knock(s.web, "POST", s.base+"/api/v1/login", encode(api.Login{Name: "olaf", Password: siegePassword}))
		}, "200"},
		{"another user of the host on the local socket", func() string { return local(65534) }, "no connection", func() string { return local(0) }, "200"},
	}
}

// paths are the attacks by names of files.
func (s *siege) paths() []attack {
	file := func(name string) func() string { return func() string { return loads(s.t, name, 1) } }
	const missing = "no such file here"
	list := []attack{{"TFTP: a file is written", func() string { return loads(s.t, "undionly.kpxe", 2) }, "no answer", file("undionly.kpxe"), "file"}}
	for _, name := range []string{"../../../../etc/passwd", "/etc/passwd", `..\..\..\etc\passwd`, "%2e%2e/%2e%2e/etc/passwd", "..%252f..%252fetc%252fpasswd",
		"records.db", "../site/ca.key", "boot/../../site/ca.key", "manifest.json", "vmlinuz", "undionly.kpxe/../../site/ca.key", "C:\\undionly.kpxe\\..\\ca.key"} {
		list = append(list, attack{"TFTP: " + strings.ReplaceAll(name, "/", "|"), file(name), missing, file("525400770010/undionly.kpxe"), "file"})
	}
	get := func(port func() (net.Conn, error), target string) string {
		status, b := raw(port, "GET "+target+" HTTP/1.1\r\nHost: "+applianceAddr+"\r\nConnection: close\r\n\r\n")
		if leaks(b) {
			return "a secret"
		}
		return status
	}
	kernel := func() string { return get(plainPort, "/boot/vmlinuz") }
	for target, want := range map[string]string{"/../../../etc/passwd": "404", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd": "404", "/%252e%252e/%252e%252e/etc/passwd": "404",
		"//etc/passwd": "404", "/boot/../../site/ca.key": "404", "/boot/..%2f..%2fsite%2fca.key": "404", `/boot/..%5c..%5csite%5cca.key`: "404", "/boot/%00": "404", "/boot/ca.key%00vmlinuz": "404",
		"/boot/manifest.json": "404", "/records.db": "404", "/seedbed.sock": "404", "/torrents/../site/ca.key": "404", "/torrents/..%2fsite%2fca.key": "404",
		"file:///etc/passwd": "404", "http://evil.example/etc/passwd": "404", "/boot/%zz": "400", "*": "404", "/boot/": "404"} {
		list = append(list, attack{"HTTP: " + strings.ReplaceAll(target, "/", "|"), func() string { return get(plainPort, target) }, want, kernel, "200"})
	}
	hello := func() string { return get(tlsPort, "/readyz") }
	for target, want := range map[string]string{"/../../etc/passwd": "307", "/agent/v1/manifest/..%2f..%2fsite%2fca.key": "401", "/agent/v1/../../site/ca.key": "307",
		"/api/v1/../../records.db": "307", "/site/ca.key": "404", "/api/v1/openapi.json/../../../etc/passwd": "307"} {
		list = append(list, attack{"HTTPS: " + strings.ReplaceAll(target, "/", "|"), func() string { return get(tlsPort, target) }, want, hello, "200"})
	}
	return append(list,
		attack{"HTTPS: a digest that is a path", func() string { return s.by(s.victim, "GET", job.PathManifest+"..%2f..%2fsite%2fca.key", nil) }, "400 invalid",
			func() string { return s.by(s.victim, "GET", job.PathManifest+s.victim.job.Image.String(), nil) }, "200"},
		attack{"HTTPS: an image that is a path", func() string { return s.bearer(s.admin, "GET", "/images/..%2f..%2fsite%2fca.key/disk", nil) }, "404 image-unknown",
			func() string { return s.bearer(s.admin, "GET", "/images/debian/usage", nil) }, "200"})
}

// bodies are requests that are too long, too deep or not what they say.
func (s *siege) bodies() []attack {
	long := append([]byte(`{"token":"`), bytes.Repeat([]byte("a"), 10<<20)...)
	deep := append([]byte(`{"job":`), bytes.Repeat([]byte("["), 500_000)...)
	nested := append([]byte(nil), bytes.Repeat([]byte{0x81}, 100_000)...)
	hello := func() string {
		return knock(s.web, "POST", s.base+job.PathHello, encode(job.Hello{Token: s.victim.boot.Token, MAC: s.victim.boot.MAC, PublicKey: s.public(s.victim)}))
	}
	report := func() string {
		return s.by(s.victim, "POST", job.PathReport, job.Report{Job: s.victim.job.ID, Epoch: s.victim.job.Epoch, State: job.Running})
	}
	header := func(port func() (net.Conn, error), path string) func(int) string {
		return func(n int) string {
			status, _ := raw(port, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: "+strings.Repeat("a", n)+"\r\n\r\n")
			return status
		}
	}
	plain, secure := header(plainPort, "/boot/vmlinuz"), header(tlsPort, "/readyz")
	makes := func() string { return s.bearer(s.operator, "POST", "/groups", group()) }
	return []attack{
		{"10 MB of JSON by nobody", func() string { return knock(s.web, "POST", s.base+job.PathHello, long) }, "413 too-large", hello, "200"},
		{"10 MB of JSON by a machine", func() string { return s.by(s.victim, "POST", job.PathReport, long) }, "413 too-large", report, "200"},
		{"10 MB of JSON by an operator", func() string { return s.bearer(s.operator, "POST", "/groups", long) }, "413 too-large", makes, "201"},
		{"10 MB of JSON as a login", func() string { return knock(s.web, "POST", s.base+"/api/v1/login", long) }, "413 too-large", makes, "201"},
		{"deep JSON by a machine", func() string { return s.by(s.victim, "POST", job.PathReport, deep) }, "400 invalid", report, "200"},
		{"deep JSON by an operator", func() string { return s.bearer(s.operator, "POST", "/groups", deep) }, "400 invalid", makes, "201"},
		{"deep CBOR by a machine", func() string { return s.by(s.victim, "POST", job.PathFrame, nested) }, "400 invalid",
			func() string { return s.by(s.victim, "POST", job.PathFrame, frameOf(s, s.victim.job.ID)) }, "204"},
		{"a header of 1 MB at the boot files", func() string { return plain(1 << 20) }, "431", func() string { return plain(100) }, "200"},
		{"a header of 1 MB at the agents' port", func() string { return secure(1 << 20) }, "431", func() string { return secure(100) }, "200"},
		{"a request inside another", func() string {
			status, b := raw(plainPort, "GET /boot/vmlinuz HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /grub/grub.cfg HTTP/1.1\r\nHost: x\r\n\r\n")
			return status + " " + strconv.Itoa(bytes.Count(b, []byte("HTTP/1.1 ")))
		}, "413 1", func() string {
			status, b := raw(plainPort, "GET /boot/vmlinuz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			return status + " " + strconv.Itoa(bytes.Count(b, []byte("HTTP/1.1 ")))
		}, "200 1"},
	}
}

// words are attacks by what a stranger calls itself: on terminals, spreadsheets, headers and the log.
func (s *siege) words() []attack {
	const evil, formula = "\x1b]0;owned\x07\x1b[2J\r\nforged  row\u202e", "=cmd|' /C calc'!A0"
	inv := inventoryOf(s.stranger)
	inv.Product, inv.Manufacturer = evil, "@SUM(1+1)"
	inv.Disks = []job.Disk{{Name: formula, Model: evil, Serial: evil, Length: 1}}
	if got := s.by(s.stranger, "POST", job.PathInventory, inv); got != "200" {
		s.t.Fatalf("inventory: %s", got)
	}
	s.by(s.victim, "POST", job.PathReport, job.Report{Job: s.victim.job.ID, Epoch: s.victim.job.Epoch, State: job.Paused, Reason: "stuck" + evil, Code: "x", Disk: evil})
	steers := func(args ...string) string {
		cmd := exec.Command(os.Args[0], append([]string{"--data", s.data}, args...)...)
		cmd.Env = commandEnv()
		out, _ := cmd.CombinedOutput()
		if bytes.ContainsAny(out, "\x1b\x07\r\u202e") || bytes.Contains(out, []byte("\nforged")) {
			return "steered"
		}
		return "plain"
	}
	says := func(what string, args ...string) func() string {
		return func() string { return contains([]byte(must(s.t, s.data, args...)), what) }
	}
	tables := func(args ...string) func() string { return func() string { return steers(args...) } }
	created := func(name string) (string, http.Header) {
		answer, _, h := knocked(s.web, "POST", s.base+"/api/v1/groups", encode(fleet.GroupOrder{Name: name}), "Authorization", "Bearer "+s.operator)
		return answer, h
	}
	return []attack{
		{"the table of machines steers a terminal", tables("machine", "ls"), "plain", says("SUM(1+1)", "machine", "ls"), "with"},
		{"the description of a machine steers a terminal", tables("machine", "show", s.stranger.me.Machine), "plain", says("SUM(1+1)", "machine", "show", s.stranger.me.Machine), "with"},
		{"the history steers a terminal", tables("event", "ls"), "plain", says("stuck", "event", "ls"), "with"},
		{"the table of jobs steers a terminal", tables("job", "ls"), "plain", says("stuck", "job", "ls"), "with"},
		{"the description of a job steers a terminal", tables("job", "show", s.victim.job.ID), "plain", says("stuck", "job", "show", s.victim.job.ID), "with"},
		{"an error steers a terminal", tables("machine", "show", evil), "plain", says("pc-", "machine", "ls"), "with"},
		{"a formula in the table of machines", func() string { return contains([]byte(must(s.t, s.data, "machine", "export")), ",=cmd") }, "without", says("'=cmd|", "machine", "export"), "with"},
		{"a formula that begins with @", func() string { return contains([]byte(must(s.t, s.data, "machine", "export")), ",@SUM") }, "without", says("'@SUM", "machine", "export"), "with"},
		{"a header by the name of a group", func() string {
			answer, h := created("x\r\nSet-Cookie: owned=1")
			return answer + h.Get("Set-Cookie")
		}, "400 invalid", func() string { answer, _ := created("honest"); return answer }, "201"},
		{"a header by the name of an image", func() string {
			answer, _, h := knocked(s.web, "GET", s.base+"/api/v1/images/debian%0d%0aSet-Cookie:%20owned=1/disk", nil, "Authorization", "Bearer "+s.operator)
			return answer + h.Get("Set-Cookie")
		}, "404 image-unknown", func() string { return s.bearer(s.operator, "GET", "/images/debian/disk", nil) }, "200"},
	}
}

// floods are attacks by number. Each is followed by what a machine or a person needs then.
func (s *siege) floods() []attack {
	pid := s.p.cmd.Process.Pid
	known := func() int { return len(decode[[]api.Machine](s.t, s.data, "machine", "ls")) }
	boots := func(n int) func() string {
		return func() string {
			m := &machine{t: s.t, mac: fmt.Sprintf("52:54:00:78:00:%02x", n), own: fmt.Sprintf("10.77.0.%d", 100+n)}
			m.bootAgent()
			m.hello()
			return "booted"
		}
	}
	grown := func(flood func()) func() string {
		return func() string {
			before, machines := resident(s.t, pid), known()
			flood()
			if n := known(); n != machines {
				return fmt.Sprintf("%d machines more", n-machines)
			}
			if more := resident(s.t, pid) - before; more > 128<<20 {
				return fmt.Sprintf("%d MB more", more>>20)
			}
			return "nothing"
		}
	}
	crowd := from(s.t, "10.77.0.69", nil)
	open := decode[api.OpenSwarm](s.t, s.data, "image", "open", "other")
	random := mathrand.New(mathrand.NewChaCha8([32]byte{7}))
	hardware := func() net.HardwareAddr {
		return net.HardwareAddr{2, byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())}
	}
	return []attack{
		{"hellos of random MACs", grown(func() {
			key := s.public(&machine{key: s.newKey()})
			together(8, 1200, func(i int, c *http.Client) {
				knock(c, "POST", s.base+job.PathHello, encode(job.Hello{Token: fmt.Sprintf("%064x", i), MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&255), PublicKey: key}))
			}, s.web)
		}), "nothing", boots(1), "booted"},
		{"requests for scripts of random MACs", grown(func() {
			together(4, 800, func(i int, c *http.Client) {
				knock(c, "GET", fmt.Sprintf("http://%s/boot/token?mac=02:00:00:01:%02x:%02x", applianceAddr, i>>8, i&255), nil)
			}, s.web)
		}), "nothing", boots(2), "booted"},
		{"DHCP packets of random MACs", func() string {
			before, machines := resident(s.t, pid), known()
			var list [][]byte
			for range 600 {
				list = append(list, discover(hardware(), "10.77.0.66"))
			}
			pour(s.t, 67, list)
			if n := known() - machines; n > 600 {
				return fmt.Sprintf("%d machines more", n)
			}
			if more := resident(s.t, pid) - before; more > 128<<20 {
				return fmt.Sprintf("%d MB more", more>>20)
			}
			return "at most a record each"
		}, "at most a record each", boots(3), "booted"},
		{"DHCP garbage", grown(func() {
			good := discover(net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 0x10}, machineAddr)
			list := garbage(good[240:], 400)
			for i, b := range garbage(good, 400) {
				list = append(list, b[:min(len(b), 200)]) // shorter than any packet of BOOTP (RFC 951 §3)
				list[i] = append(bytes.Clone(good[:236]), b...)
			}
			pour(s.t, 67, list)
			pour(s.t, 4011, list)
		}), "nothing", boots(4), "booted"},
		{"TFTP garbage", grown(func() {
			pour(s.t, 69, garbage([]byte("\x00\x01undionly.kpxe\x00octet\x00blksize\x001428\x00tsize\x000\x00"), 1000))
		}), "nothing",
			func() string { return loads(s.t, "undionly.kpxe", 1) }, "file"},
		{"garbage at the swarm's port", grown(func() {
			for _, b := range garbage([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x00\x00\x00aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb"), 100) {
				if conn, err := net.Dial("tcp", seederOf(s.victim).String()); err == nil {
					conn.Write(b)
					conn.Close()
				}
			}
		}), "nothing", func() string { return peers(s.victim.job.InfoHash, certificateOf(s.victim, s.victim.job.Certificate)) }, "in"},
		{"TLS handshakes that are left", grown(func() {
			together(8, 400, func(int, *http.Client) {
				if conn, err := net.Dial("tcp", applianceAddr+":443"); err == nil {
					go tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).Handshake()
					conn.(*net.TCPConn).SetLinger(0)
					conn.Close()
				}
			}, nil)
		}), "nothing", func() string { return knock(from(s.t, "10.77.0.21", nil), "GET", s.base+"/readyz", nil) }, "200"},
		{"logins", func() string {
			c, began, heard := from(s.t, "10.77.0.67", nil), time.Now(), 0
			for i := range 40 {
				if knock(c, "POST", s.base+"/api/v1/login", encode(api.Login{Name: fmt.Sprintf("nobody%d", i), Password: "a password that is wrong"})) != "429 too-many" {
					heard++
				}
			}
			if most := 20 + time.Since(began).Seconds()/3 + 1; float64(heard) > most { // one now and then is let in again
				return fmt.Sprintf("%d are heard, where %.0f may be", heard, most)
			}
			return "429 too-many"
		}, "429 too-many", func() string {
			return knock(from(s.t, "10.77.0.68", nil), "POST", s.base+"/api/v1/login", encode(api.Login{Name: "vera", Password: siegePassword}))
		}, "200"},
		{"logins of sixty people at once", grown(func() {
			var all []*http.Client
			for i := range 4 {
				all = append(all, from(s.t, fmt.Sprintf("10.77.0.%d", 70+i), nil))
			}
			together(60, 60, func(i int, _ *http.Client) {
				knock(all[i%4], "POST", s.base+"/api/v1/login", encode(api.Login{Name: fmt.Sprintf("nobody%d", i), Password: "a password that is wrong"}))
			}, nil)
		}), "nothing", func() string {
			return knock(from(s.t, "10.77.0.74", nil), "POST", s.base+"/api/v1/login", encode(api.Login{Name: "anna", Password: siegePassword}))
		}, "200"},
		{"requests without a name", func() string {
			began, heard := time.Now(), 0
			for i := range 600 {
				if knock(crowd, "GET", s.base+"/api/v1/machines", nil, "Authorization", fmt.Sprintf("Bearer seedbed_%d_x", i)) != "429 too-many" {
					heard++
				}
			}
			if most := 400 + 20*time.Since(began).Seconds() + 1; float64(heard) > most { // one now and then is let in again
				return fmt.Sprintf("%d are heard, where %.0f may be", heard, most)
			}
			return "429 too-many"
		}, "429 too-many", func() string {
			return knock(crowd, "GET", s.base+"/api/v1/machines", nil, "Authorization", "Bearer "+s.viewer) // from the same address
		}, "200"},
		{"peers of an open swarm, all of one address", func() string {
			var answer []byte
			for i := range 100 {
				_, answer, _ = knocked(crowd, "GET", "http://"+applianceAddr+announces(open.InfoHash, uint16(9000+i), ""), nil)
			}
			m := regexp.MustCompile(`10:incompletei(\d+)e`).FindSubmatch(answer)
			if m == nil {
				return string(answer)
			}
			if n, _ := strconv.Atoi(string(m[1])); n < 64 || n > 70 { // theirs, and the few that were there
				return string(m[1]) + " peers"
			}
			return "64 peers that others are told of"
		}, "64 peers that others are told of", func() string {
			_, b, _ := knocked(s.web, "GET", "http://"+applianceAddr+announces(open.InfoHash, 9000, ""), nil)
			return failureOf(b)
		}, "peers"},
		{"places for saved tables that are held", func() string {
			last := "refused"
			for range 9 { // one more than there are
				conn, err := tls.Dial("tcp", applianceAddr+":443", &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*certificateOf(s.stranger, s.stranger.welcome.Certificate)}})
				if err != nil {
					return err.Error()
				}
				s.t.Cleanup(func() { conn.Close() })
				fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n\x81", job.PathFrame)
				conn.SetReadDeadline(time.Now().Add(time.Second))
				if n, _ := io.ReadFull(conn, make([]byte, 12)); n < 12 {
					last = "held"
				}
			}
			return last
		}, "refused", func() string { return s.by(s.victim, "POST", job.PathFrame, frameOf(s, s.victim.job.ID)) }, "204"},
		{"TFTP transfers of one address", func() string {
			answer := ""
			for range 513 { // one more than an address may have
				conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP("10.77.0.66")})
				if err != nil {
					return err.Error()
				}
				defer conn.Close()
				conn.WriteTo([]byte("\x00\x01undionly.kpxe\x00octet\x00"), &net.UDPAddr{IP: net.ParseIP(applianceAddr), Port: 69})
				conn.SetReadDeadline(time.Now().Add(time.Second))
				b := make([]byte, 600)
				if n, _, _ := conn.ReadFrom(b); n > 4 && b[1] == 5 { // else it has a block, which it never acknowledges
					answer = strings.TrimRight(string(b[4:n]), "\x00")
				}
			}
			return answer
		}, "the appliance is busy; start the machine again", func() string { return loads(s.t, "undionly.kpxe", 1) }, "file"},
		{"connections that say nothing", func() string {
			closed := make(chan bool, 8000)
			for i := range 4200 {
				conn, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP("10.77.0.66")}, &net.TCPAddr{IP: net.ParseIP(applianceAddr), Port: 443})
				if err != nil {
					return fmt.Sprintf("%d: %v", i, err)
				}
				s.t.Cleanup(func() { conn.Close() })
				if i < 50 { // the oldest
					go func() {
						conn.SetReadDeadline(time.Now().Add(10 * time.Second))
						_, err := conn.Read(make([]byte, 1))
						closed <- err == io.EOF
					}()
				}
			}
			for range 50 {
				if !<-closed {
					return "all stay"
				}
			}
			return "the oldest are closed"
		}, "the oldest are closed", func() string { return knock(from(s.t, "10.77.0.22", nil), "GET", s.base+"/readyz", nil) }, "200"},
	}
}

// together has some clients do something n times.
func together(clients, n int, do func(i int, c *http.Client), c *http.Client) {
	done := make(chan struct{})
	for k := range clients {
		go func() {
			for i := k; i < n; i += clients {
				do(i, c)
			}
			done <- struct{}{}
		}()
	}
	for range clients {
		<-done
	}
}

// slowOnes open connections that never say what they want, and return the rows that look at what became of them.
func (s *siege) slowOnes() func() []attack {
	drip := func(text string) func(net.Conn) {
		return func(c net.Conn) { io.WriteString(c, text) }
	}
	waiting := []struct {
		name string
		is   <-chan time.Duration
	}{
		{"a header that never ends, at the boot files", held(plainPort, drip("GET /boot/vmlinuz HTTP/1.1\r\nX-A: "))},
		{"a header that never ends, at the agents' port", held(tlsPort, drip("GET /readyz HTTP/1.1\r\nX-A: "))},
		{"a handshake that never begins", held(func() (net.Conn, error) { return net.Dial("tcp", applianceAddr+":443") }, drip(""))},
		{"a hello that never comes", held(tlsPort, drip("POST "+job.PathHello+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"))},
		{"a body that nobody asked for, at the boot files", held(plainPort, drip("GET /boot/vmlinuz HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"))},
		{"a body that nobody asked for, at the agents' port", held(tlsPort, drip("GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"))},
		{"a login that never comes", held(tlsPort, drip("POST /api/v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"))},
		{"a handshake that never begins, at the swarm's port", held(func() (net.Conn, error) { return net.Dial("tcp", applianceAddr+":6881") }, drip(""))},
	}
	return func() (list []attack) {
		for _, w := range waiting {
			list = append(list, attack{w.name, func() string {
				if d := <-w.is; d > 45*time.Second {
					return fmt.Sprintf("held for %v", d.Round(time.Second))
				}
				return "closed"
			}, "closed", func() string {
				return knock(s.victim.client, "GET", s.base+job.PathManifest+s.victim.job.Image.String(), nil)
			}, "200"})
		}
		return list
	}
}

// quiet looks at what the appliance said meanwhile: no secret, and nothing that steers the terminal of who reads its log.
func (s *siege) quiet() {
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.p.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	script := s.victim.firmware()
	s.p.kill()
	filesArePrivate(s.t, s.data)
	log := s.p.log.String()
	for what, secret := range s.secrets {
		if len(secret) < 16 {
			s.t.Errorf("%s is %q", what, secret)
		}
		for where, text := range map[string]string{"log": log, "arguments": string(arguments), "script": script} {
			s.t.Run("the "+what+" in the "+where, func(t *testing.T) {
				if strings.Contains(text, secret) {
					t.Errorf("the %s stands in the %s", what, where)
				}
			})
		}
	}
	if strings.ContainsAny(log, "\x1b\x07\r") || strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
		s.t.Error("the log steers a terminal, or tells of a panic or a race")
	}
	if !strings.Contains(log, "request refused") {
		s.t.Error("the log does not tell of what was refused")
	}
}
