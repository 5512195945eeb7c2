package alert

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"seedbed/appliance/fleet"
)

// sendTimeout bounds one attempt to send a message.
const sendTimeout = 30 * time.Second

// Mail sends one message as mail, and returns what came of it as a sentence. So is an error.
func Mail(ctx context.Context, c fleet.Channels, secrets Secrets, m *fleet.Message) (string, error) {
	msg, err := letter(c, m)
	if err != nil {
		return "", err
	}
	password, err := secrets.mailPassword()
	if err != nil {
		return "", err
	}
	if c.MailUser != "" && password == "" {
		return "", fmt.Errorf("the password of mail user %s is not known: put it into a file of mode 0600 and name that with `seedbed serve --mail-password-file`", c.MailUser)
	}
	roots, err := secrets.roots()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	host, _, _ := net.SplitHostPort(c.MailServer) // it is checked where it is set
	call := &call{secure: &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12}, implicit: c.MailTLS == fleet.MailImplicit}
	defer call.close() // the client leaves it open after some errors
	stop := context.AfterFunc(ctx, call.close)
	defer stop()
	client, err := call.client(c, password)
	if err != nil {
		return "", fmt.Errorf("mail server %s cannot be asked: %w", c.MailServer, err)
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err == nil {
		err = client.SendWithSMTPClient(session, msg)
	}
	if err != nil && !msg.IsDelivered() { // what goes wrong after it took the message is no reason to send it twice
		return "", errors.New(mailSentence(c, secrets.CA, err))
	}
	_ = client.CloseWithSMTPClient(session) // the server has it
	return fmt.Sprintf("mail server %s took the message for %s: %s", c.MailServer, strings.Join(c.MailTo, ", "), oneLine(msg.ServerResponse())), nil
}

// letter is a message as mail.
func letter(c fleet.Channels, m *fleet.Message) (*mail.Msg, error) {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := msg.From(c.MailFrom); err != nil {
		return nil, fmt.Errorf("%q, from which mail comes, is no address; set another with `seedbed settings set --mail-from`", c.MailFrom)
	}
	if err := msg.To(c.MailTo...); err != nil || len(c.MailTo) == 0 {
		return nil, errors.New("mail goes to no address, or to one that is none; set others with `seedbed settings set --mail-to`")
	}
	msg.Subject(m.Subject)
	// The same message has the same ID however often it is sent, by which a mailbox that got it twice knows it (RFC 5322 §3.6.4).
	_, domain, _ := strings.Cut(c.MailFrom, "@")
	msg.SetMessageIDWithValue("seedbed-" + m.ID + "@" + domain)
	msg.SetDateWithValue(m.Created)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834 §5: no vacation program answers it
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	return msg, nil
}

// call is the connection of one attempt.
type call struct {
	secure   *tls.Config
	implicit bool // TLS from the first byte on
	opened   chan net.Conn
}

// client returns a client that makes this call.
func (l *call) client(c fleet.Channels, password string) (*mail.Client, error) {
	l.opened = make(chan net.Conn, 1)
	host, port, err := net.SplitHostPort(c.MailServer)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	policy := mail.NoTLS
	if c.MailTLS == fleet.MailSTARTTLS {
		policy = mail.TLSMandatory
	}
	name, err := os.Hostname()
	if err != nil {
		name = "seedbed"
	}
	options := []mail.Option{
		mail.WithPort(number), mail.WithTLSPolicy(policy), mail.WithTLSConfig(l.secure), mail.WithTimeout(sendTimeout), mail.WithHELO(name),
		mail.WithDialContextFunc(l.dial), mail.WithoutNoop(),
	}
	if c.MailUser != "" {
		options = append(options, mail.WithUsername(c.MailUser), mail.WithPassword(password),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlain, mail.SMTPAuthLogin, mail.SMTPAuthCramMD5))
	}
	return mail.NewClient(host, options...)
}

func (l *call) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.opened <- conn
	if !l.implicit {
		return conn, nil
	}
	secured := tls.Client(conn, l.secure)
	return secured, secured.HandshakeContext(ctx)
}

// close ends the call. It may be called more than once.
func (l *call) close() {
	select {
	case conn := <-l.opened:
		conn.Close()
	default:
	}
}
