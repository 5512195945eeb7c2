//go:build linux

package main

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/alert"
	"seedbed/appliance/fleet"
	"seedbed/test-vm/mailserver"
)

// toldTo is what the flags of `settings set` and of `serve` are for a mail server.
func toldTo(s *mailserver.Server, address, tls string) []string {
	return []string{"settings", "set", "--mail-server", address, "--mail-tls", tls, "--mail-user", mailserver.User, "--mail-from", "seedbed@" + mailserver.Domain, "--mail-to", "anna@" + mailserver.Domain + ",otto@" + mailserver.Domain}
}

func TestATestMessageIsTakenByARealMailServer(t *testing.T) {
	network(t)
	server := mailserver.New(t)
	server.Start()
	data, secret := filepath.Join(t.TempDir(), "data"), writeSecret(t, mailserver.Password+"\n")
	p := serve(t, data, bootFiles(t), "--mail-password-file", secret, "--alert-ca", server.CA, "--log-level", "debug")
	if out, code := seedbed(t, data, "alert", "test"); code == 0 || !strings.Contains(out, "nowhere to send") {
		t.Errorf("without a server: %d %s", code, out)
	}
	for _, c := range []struct{ address, tls string }{{server.Plain, "starttls"}, {server.Implicit, "tls"}} {
		must(t, data, toldTo(server, c.address, c.tls)...)
		if out := must(t, data, "alert", "test"); !strings.HasPrefix(out, "mail server "+c.address+" took the message for anna@example.org, otto@example.org: ") || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %s", c.tls, out)
		}
	}
	// Exim delivers one copy, since both addresses have one mailbox.
	until(t, 20*time.Second, "two messages are in the mailbox", func() bool { return len(server.Mails()) >= 2 })
	for _, m := range server.Mails() {
		if m.Subject() != "Seedbed: a test" || m.Header.Get("From") != "<seedbed@example.org>" || !strings.Contains(m.Text, "All alerts: https://"+applianceAddr) ||
			m.Header.Get("Auto-Submitted") != "auto-generated" || !strings.HasSuffix(m.Header.Get("Message-ID"), "@example.org>") {
			t.Errorf("%v\n%s", m.Header, m.Text)
		}
	}
	texts := must(t, data, "event", "ls", "--kind", "message.tested")
	if strings.Count(texts, "a test message was sent: mail server ") != 2 {
		t.Error(texts)
	}
	p.kill()
	said := p.log.String() + p.out.String() + strings.Join(p.cmd.Args, " ") + texts
	for _, form := range []string{mailserver.Password, "correct horse"} {
		if strings.Contains(said, form) || recordsContain(t, data, form) {
			t.Error("the password of the mail user is said, or in the records")
		}
	}
}

// What is wrong is said in a sentence that tells what to do.
func TestAMailServerThatDoesNotTakeAMessage(t *testing.T) {
	network(t)
	server := mailserver.New(t)
	server.Start()
	boot, secret, wrong := bootFiles(t), writeSecret(t, mailserver.Password+"\n"), writeSecret(t, "wrong 31415\n")
	_, port, _ := strings.Cut(server.Plain, ":")
	away := mailserver.New(t) // never started
	for _, c := range []struct {
		flags        []string
		address, tls string
		more         []string
		want         string
	}{
		{[]string{"--mail-password-file", wrong, "--alert-ca", server.CA}, server.Plain, "starttls", nil, "refused user seedbed or the password: 535 "},
		{[]string{"--alert-ca", server.CA}, server.Plain, "starttls", nil, "the password of mail user seedbed is not known: put it into a file"},
		{[]string{"--mail-password-file", secret}, server.Plain, "starttls", nil, "the certificate of mail server " + server.Plain + " is of none of the authorities of this host; if it is right"},
		{[]string{"--mail-password-file", secret, "--alert-ca", away.CA}, server.Implicit, "tls", nil, "is of none of the authorities in " + away.CA},
		{[]string{"--mail-password-file", secret, "--alert-ca", server.CA}, "localhost:" + port, "starttls", nil, "is for another name"},
		{[]string{"--mail-password-file", secret, "--alert-ca", server.CA}, away.Plain, "starttls", nil, "nothing answers at its port"},
		{[]string{"--mail-password-file", secret, "--alert-ca", server.CA}, server.Plain, "tls", nil, "speaks no TLS that this appliance does at this port"},
		{[]string{"--mail-password-file", secret, "--alert-ca", server.CA}, server.Plain, "starttls", []string{"--mail-to", "eve@elsewhere.example"}, `does not take the message: 550 "relay not permitted" for <eve@elsewhere.example>; look at the addresses`},
		{[]string{"--alert-ca", server.CA}, server.Plain, "starttls", []string{"--mail-user", ""}, `does not take the message: 550 "log in first"`},
		{[]string{"--alert-ca", server.CA}, "no-such-host.invalid:25", "starttls", []string{"--mail-user", ""}, "is not found by its name"},
	} {
		data := filepath.Join(t.TempDir(), "data")
		p := serve(t, data, boot, append(c.flags, "--no-boot")...)
		must(t, data, append(toldTo(server, c.address, c.tls), c.more...)...)
		out, code := seedbed(t, data, "alert", "test", "--json")
		_ = out
		if code != exitFailure {
			t.Errorf("%s: exit code %d", c.want, code)
		}
		if text := must(t, data, "event", "ls", "--kind", "message.tested"); !strings.Contains(text, c.want) || strings.Contains(text, "31415") || strings.Contains(text, mailserver.Password) {
			t.Errorf("%s:\n%s", c.want, text)
		}
		p.kill()
	}
	if mails := server.Mails(); len(mails) > 0 {
		t.Errorf("%+v", mails)
	}
}

// Mail that could not be sent is kept, shown, and goes later, once.
func TestMailThatCouldNotBeSentGoesLater(t *testing.T) {
	network(t)
	server := mailserver.New(t)
	data, boot, secret := filepath.Join(t.TempDir(), "data"), bootFiles(t), writeSecret(t, mailserver.Password+"\n")
	flags := []string{"--no-boot", "--mail-password-file", secret, "--alert-ca", server.CA}
	p := serve(t, data, boot, flags...)
	must(t, data, toldTo(server, server.Plain, "starttls")...)
	must(t, data, "settings", "set", "--free-share", "0.999999") // more than any disk that a program runs on
	list := func() []fleet.Message { t.Helper(); return decode[[]fleet.Message](t, data, "alert", "messages") }
	until(t, 60*time.Second, "the message is kept", func() bool { l := list(); return len(l) == 1 && l[0].Error != "" })
	if m := list()[0]; !m.Waiting() || m.Attempts != 1 || !strings.Contains(m.Error, "nothing answers at its port") || m.Subject != "Seedbed: the repository is nearly full" {
		t.Errorf("%+v", m)
	}
	if out := must(t, data, "alert", "messages"); !strings.Contains(out, "kept after 1 attempts, next ") || !strings.Contains(out, "nothing answers") {
		t.Error(out)
	}
	if out := must(t, data, "alert", "ls", "--open"); !strings.Contains(out, "space") || !strings.Contains(out, "lasts") {
		t.Error(out)
	}
	p.kill() // it is kept by the records, not by the program
	server.Start()
	p = serve(t, data, boot, flags...)
	until(t, 60*time.Second, "the message is sent", func() bool { l := list(); return len(l) == 1 && !l[0].Sent.IsZero() })
	until(t, 20*time.Second, "it is in the mailbox", func() bool { return len(server.Mails()) > 0 })
	must(t, data, "settings", "set", "--silence", "5s", "--slow-for", "5s", "--free-bytes", "0", "--free-share", "0")
	until(t, 90*time.Second, "its end is told", func() bool { return len(server.Mails()) >= 2 })
	mails := server.Mails()
	if len(mails) != 2 || mails[0].Subject() != "Seedbed: the repository is nearly full" || mails[1].Subject() != "Seedbed: over: the repository is nearly full" {
		t.Errorf("%d mails: %+v", len(mails), mails)
	}
	if !strings.Contains(mails[0].Text, "What to do: remove versions that nobody needs") {
		t.Error(mails[0].Text)
	}
	p.kill()
}

// The webhook's messages are signed, and neither its URL nor its secret is said.
func TestTheWebhookIsPosted(t *testing.T) {
	network(t)
	hook := newHook(t)
	data, secret := filepath.Join(t.TempDir(), "data"), writeSecret(t, "sesame 2718281828\n")
	p := serve(t, data, bootFiles(t), "--no-boot", "--webhook-secret-file", secret, "--log-level", "debug")
	must(t, data, "settings", "set", "--webhook", hook.url+"/path-31415926", "--free-share", "0.999999")
	until(t, 60*time.Second, "the message arrives", func() bool { return len(hook.got()) >= 2 }) // the first is answered with 503
	all := hook.got()
	if all[0].id != all[1].id || all[0].id == "" || all[1].signature != alert.Sign([]byte("sesame 2718281828"), all[1].body) || !strings.Contains(string(all[1].body), `"rule":"space"`) {
		t.Errorf("%+v", all)
	}
	if mac, ok := strings.CutPrefix(all[1].signature, "sha256="); !ok || len(mac) != 2*32 {
		t.Error(all[1].signature)
	} else if _, err := hex.DecodeString(mac); err != nil {
		t.Error(err)
	}
	until(t, 20*time.Second, "it is known to be sent", func() bool {
		l := decode[[]fleet.Message](t, data, "alert", "messages")
		return len(l) == 1 && !l[0].Sent.IsZero() && l[0].Attempts == 2
	})
	if out := must(t, data, "alert", "test"); !strings.Contains(out, "took the message: 200 OK") {
		t.Error(out)
	}
	texts := must(t, data, "event", "ls")
	p.kill()
	for _, word := range []string{"31415926", "2718281828", "sesame"} {
		if strings.Contains(p.log.String()+texts, word) {
			t.Errorf("%s is said", word)
		}
	}
	if b, err := os.ReadFile(secret); err != nil || len(b) == 0 {
		t.Error(err)
	}
}
