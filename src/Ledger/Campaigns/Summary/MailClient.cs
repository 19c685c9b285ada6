using System.Globalization;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace Ledger.Campaigns;

/// <summary>A mail could not be handed over. The message says at which step, and nothing that the server or the settings hold.</summary>
public sealed class MailException(string message) : Exception(message);

/// <summary>
/// Hands one mail over by SMTP (RFC 5321), with STARTTLS or TLS from the start, and AUTH PLAIN or LOGIN. A password goes over TLS or
/// loopback only, and a server that should have STARTTLS and lacks it gets nothing.
/// </summary>
public static class MailClient
{
    /// <summary>Bytes of a server's line, its end included.</summary>
    public const int MaxLineBytes = 1_024;

    /// <summary>Lines of one reply.</summary>
    public const int MaxReplyLines = 64;

    /// <summary>How long handing over may take altogether.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    /// <summary>Writes a mail: plain text in UTF-8. Nothing of <paramref name="text"/> can become a header or a command, for it is packed.</summary>
    public static string Write(MailSettings settings, string id, string subject, string text, DateTimeOffset date)
    {
        var mail = new StringBuilder();
        mail.Append(CultureInfo.InvariantCulture, $"Date: {date.ToUniversalTime():ddd, dd MMM yyyy HH:mm:ss} +0000\r\n");
        mail.Append(CultureInfo.InvariantCulture, $"From: {settings.From}\r\nTo: {string.Join(",\r\n ", settings.To)}\r\nSubject: {subject}\r\n");
        mail.Append(CultureInfo.InvariantCulture, $"Message-ID: <{id}@{settings.From[(settings.From.IndexOf('@') + 1)..]}>\r\n");
        mail.Append("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\nAuto-Submitted: auto-generated\r\n\r\n");
        return mail.Append(Convert.ToBase64String(Encoding.UTF8.GetBytes(text), Base64FormattingOptions.InsertLineBreaks)).Append("\r\n").ToString();
    }

    /// <summary>Hands it over; when this returns, the server has taken it. <paramref name="trust"/>: whom TLS trusts, unless the system's authorities.</summary>
    /// <exception cref="MailException">It was not taken, or nothing is known of it.</exception>
    public static async Task Send(MailSettings settings, string mail, X509ChainPolicy? trust, CancellationToken cancellation)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        patience.CancelAfter(Patience);
        using var client = new TcpClient();
        Stream? stream = null;
        try
        {
            await client.ConnectAsync(settings.Server.Host, settings.Port, patience.Token);
            stream = client.GetStream();
            var isSecure = settings.Server.Scheme == "smtps";
            stream = isSecure ? await Secure(stream, settings, trust, patience.Token) : stream;
            var name = client.Client.LocalEndPoint is IPEndPoint { Address: var own }
                ? own.AddressFamily == AddressFamily.InterNetworkV6 && !own.IsIPv4MappedToIPv6 ? $"[IPv6:{own}]" : $"[{own.MapToIPv4()}]" : "[127.0.0.1]";
            var session = new Session(stream, name, patience.Token);
            await session.Expect("the greeting", 220);
            var offers = await session.Greet();
            if (!isSecure && offers.Contains("STARTTLS"))
            {
                await session.Ask("STARTTLS", "STARTTLS", 220);
                session.AssertSilence();
                stream = await Secure(stream, settings, trust, patience.Token);
                (session, isSecure) = (new Session(stream, name, patience.Token), true);
                offers = await session.Greet();
            }

            if (!isSecure && !settings.Server.IsLoopback)
            {
                throw new MailException("The mail server does not offer STARTTLS.");
            }

            await session.Authenticate(settings, offers);
            await session.Ask($"MAIL FROM:<{settings.From}>", "MAIL", 250);
            foreach (var to in settings.To)
            {
                await session.Ask($"RCPT TO:<{to}>", "RCPT", 250, 251);
            }

            await session.Ask("DATA", "DATA", 354);
            await session.Ask($"{mail.Replace("\r\n.", "\r\n..", StringComparison.Ordinal)}.", "the mail", 250);
            await session.Leave();
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            throw new MailException("The mail server took too long.");
        }
        catch (AuthenticationException)
        {
            throw new MailException("There is no secure connection to the mail server.");
        }
        catch (Exception exception) when (exception is SocketException or IOException)
        {
            throw new MailException("The connection to the mail server failed.");
        }
        finally
        {
            await (stream?.DisposeAsync() ?? ValueTask.CompletedTask);
        }
    }

    private static async Task<Stream> Secure(Stream stream, MailSettings settings, X509ChainPolicy? trust, CancellationToken cancellation)
    {
        var tls = new SslStream(stream);
        try
        {
            await tls.AuthenticateAsClientAsync(new SslClientAuthenticationOptions { TargetHost = settings.Server.Host, CertificateChainPolicy = trust }, cancellation);
            return tls;
        }
        catch
        {
            await tls.DisposeAsync();
            throw;
        }
    }

    /// <summary>One side of a conversation in lines.</summary>
    private sealed class Session(Stream stream, string name, CancellationToken cancellation)
    {
        private readonly byte[] _buffer = new byte[MaxLineBytes];
        private int _length;

        public async Task<IReadOnlySet<string>> Greet() =>
            (await Ask($"EHLO {name}", "EHLO", 250)).Skip(1).Select(l => l.ToUpperInvariant()).ToHashSet();

        public async Task Authenticate(MailSettings settings, IReadOnlySet<string> offers)
        {
            if (settings.User is null)
            {
                return;
            }

            var ways = offers.Where(o => o.StartsWith("AUTH ", StringComparison.Ordinal)).SelectMany(o => o.Split(' ')).ToHashSet();
            if (ways.Contains("PLAIN"))
            {
                await Ask($"AUTH PLAIN {Packed($"\0{settings.User}\0{settings.Password}")}", "AUTH", 235);
            }
            else if (ways.Contains("LOGIN"))
            {
                await Ask("AUTH LOGIN", "AUTH", 334);
                await Ask(Packed(settings.User), "AUTH", 334);
                await Ask(Packed(settings.Password!), "AUTH", 235);
            }
            else
            {
                throw new MailException("The mail server offers neither AUTH PLAIN nor AUTH LOGIN.");
            }
        }

        /// <summary>Sends a line, or several, and reads the reply; its lines without their codes.</summary>
        public async Task<IReadOnlyList<string>> Ask(string line, string step, params int[] expected)
        {
            await stream.WriteAsync(Encoding.UTF8.GetBytes($"{line}\r\n"), cancellation);
            await stream.FlushAsync(cancellation);
            return await Expect(step, expected);
        }

        public async Task<IReadOnlyList<string>> Expect(string step, params int[] expected)
        {
            var lines = new List<string>();
            while (lines.Count < MaxReplyLines)
            {
                var line = await ReadLine();
                if (line.Length < 3 || !int.TryParse(line.AsSpan(0, 3), NumberStyles.None, CultureInfo.InvariantCulture, out var code) || (line.Length > 3 && line[3] is not (' ' or '-')))
                {
                    throw new MailException("The mail server does not speak SMTP.");
                }

                lines.Add(line.Length > 4 ? line[4..] : "");
                if (line.Length == 3 || line[3] == ' ')
                {
                    return Array.IndexOf(expected, code) >= 0 ? lines : throw new MailException($"The mail server answered {code} to {step}.");
                }
            }

            throw new MailException("The mail server says too much.");
        }

        /// <summary>What came before TLS must not count as having come within it.</summary>
        public void AssertSilence()
        {
            if (_length > 0)
            {
                throw new MailException("The mail server does not speak SMTP.");
            }
        }

        /// <summary>The mail is taken by now; whether the farewell is heard does not matter.</summary>
        public async Task Leave()
        {
            try
            {
                await Ask("QUIT", "QUIT", 221);
            }
            catch (Exception exception) when (exception is MailException or IOException or SocketException or OperationCanceledException)
            {
                // It has gone first.
            }
        }

        private async Task<string> ReadLine()
        {
            while (true)
            {
                var end = _buffer.AsSpan(0, _length).IndexOf((byte)'\n');
                if (end >= 0)
                {
                    var line = Encoding.UTF8.GetString(_buffer, 0, end).TrimEnd('\r');
                    _buffer.AsSpan(end + 1, _length - end - 1).CopyTo(_buffer);
                    _length -= end + 1;
                    return line;
                }

                if (_length == _buffer.Length)
                {
                    throw new MailException("The mail server does not speak SMTP.");
                }

                var read = await stream.ReadAsync(_buffer.AsMemory(_length), cancellation);
                _length += read > 0 ? read : throw new IOException("The mail server has hung up.");
            }
        }

        private static string Packed(string text) => Convert.ToBase64String(Encoding.UTF8.GetBytes(text));
    }
}
