package alert

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/wneessen/go-mail"

	"seedbed/appliance/fleet"
)

// mailSentence says why a mail server did not take a message, and what to do.
func mailSentence(c fleet.Channels, ca string, err error) string {
	server := "mail server " + c.MailServer
	said, answered := answerOf(err)
	switch sentence := connection(server, ca, err); {
	case answered && strings.Contains(err.Error(), "AUTH") || answered && (said.Code == 534 || said.Code == 535): // RFC 4954 §6
		return fmt.Sprintf("%s refused user %s or the password: %s; set them right with `seedbed settings set --mail-user` and in the file of --mail-password-file",
			server, c.MailUser, answer(said))
	case answered && said.Code >= 400 && said.Code < 500: // RFC 5321 §4.2.1
		return fmt.Sprintf("%s does not take the message now: %s", server, answer(said))
	case answered:
		return fmt.Sprintf("%s does not take the message: %s; look at the addresses (`seedbed settings show`)", server, answer(said))
	case strings.Contains(err.Error(), "does not support STARTTLS"):
		return fmt.Sprintf("%s does not offer STARTTLS; where it speaks TLS from the first byte on (port 465) set `--mail-tls tls`", server)
	case strings.Contains(err.Error(), "does not support SMTP AUTH") || strings.Contains(err.Error(), "supported SMTP AUTH"):
		return fmt.Sprintf("%s lets nobody log in here; send without a user (`seedbed settings set --mail-user \"\"`), or by the port for programs that send mail (587 or 465)", server)
	case sentence != "":
		return sentence
	}
	return fmt.Sprintf("%s was asked and something went wrong: %s", server, oneLine(err.Error()))
}

// answerOf is what a server answered in place of taking a message; false is that it answered nothing.
func answerOf(err error) (*textproto.Error, bool) {
	if said, answered := errors.AsType[*textproto.Error](err); answered {
		return said, true
	}
	sent, of := errors.AsType[*mail.SendError](err) // which does not unwrap
	if !of || sent.ErrorCode() < 400 {
		return nil, false
	}
	_, text, _ := strings.Cut(sent.Error(), fmt.Sprint(sent.ErrorCode(), " "))
	text, _, _ = strings.Cut(text, ", affected message ID")
	return &textproto.Error{Code: sent.ErrorCode(), Msg: strings.ReplaceAll(text, ", affected recipient(s): ", " for ")}, true
}

// answer is what a server said, on one line.
func answer(e *textproto.Error) string { return oneLine(fmt.Sprintf("%d %s", e.Code, e.Msg)) }

// maxAnswer bounds what is told of an answer, in bytes.
const maxAnswer = 300

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxAnswer {
		s = strings.ToValidUTF8(s[:maxAnswer], "") + "..."
	}
	return s
}

// connection says why a server was not reached, or not trusted; "" is something else.
func connection(server, ca string, err error) string {
	trusted := "the authorities of this host"
	if ca != "" {
		trusted = "the authorities in " + ca
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	wrongName, named := errors.AsType[x509.HostnameError](err)
	invalid, bad := errors.AsType[x509.CertificateInvalidError](err)
	_, noName := errors.AsType[*net.DNSError](err)
	timeout, timed := errors.AsType[net.Error](err)
	switch {
	case unknown:
		return fmt.Sprintf("the certificate of %s is of none of %s; if it is right, put its authority's into a file and name that with `seedbed serve --alert-ca`", server, trusted)
	case named:
		return fmt.Sprintf("the certificate of %s is for another name (%s); set the name that is in it", server, oneLine(wrongName.Error()))
	case bad && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the certificate of %s is not good now: %s; renew it there, or set this host's clock", server, oneLine(invalid.Error()))
	case bad:
		return fmt.Sprintf("the certificate of %s is not good: %s", server, oneLine(invalid.Error()))
	case noName:
		return fmt.Sprintf("%s is not found by its name; is the name right, and does this host have a name server?", server)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("%s is not reached: nothing answers at its port; is it running, and is the port right?", server)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fmt.Sprintf("%s is not reached: there is no way to it from this host", server)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), timed && timeout.Timeout(), errors.Is(err, net.ErrClosed):
		return fmt.Sprintf("%s did not answer within %v; does a firewall stand between, and is it meant to speak TLS at this port?", server, sendTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Sprintf("%s ended the connection; is the port right, and the kind of TLS?", server)
	case strings.Contains(err.Error(), "tls: "), strings.Contains(err.Error(), "first record does not look like a TLS handshake"):
		return fmt.Sprintf("%s speaks no TLS that this appliance does at this port: %s", server, oneLine(err.Error()))
	}
	return ""
}

// hookSentence says why a webhook did not take a message. The URL's path may be a secret and is not told.
func hookSentence(host, ca string, err error) string {
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err
	}
	if sentence := connection("webhook "+host, ca, err); sentence != "" {
		return sentence
	}
	return fmt.Sprintf("webhook %s was asked and something went wrong: %s", host, oneLine(err.Error()))
}
