using System.Collections.Concurrent;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Ledger.Testing;

namespace Ledger.Tests.Campaigns;

/// <summary>What a mail server got.</summary>
internal sealed record ReceivedMail(string From, IReadOnlyList<string> To, string Text, bool IsSecure, string? User, string? Password);

/// <summary>A mail server on a socket that keeps what it gets.</summary>
internal sealed class SmtpSink : IAsyncDisposable
{
    private readonly LoopbackListener _listener;

    public SmtpSink() => _listener = new LoopbackListener(Serve);

    public int Port => _listener.Port;

    /// <summary>TLS from the start.</summary>
    public bool IsTls { get; init; }

    /// <summary>What EHLO offers beside its greeting.</summary>
    public string[] Offers { get; init; } = ["STARTTLS", "AUTH PLAIN LOGIN", "8BITMIME"];

    /// <summary>Replies in the place of its own, by the first word of a command; "." is the end of a mail.</summary>
    public ConcurrentDictionary<string, string> Replies { get; } = [];

    public ConcurrentQueue<ReceivedMail> Mails { get; } = [];

    public ConcurrentQueue<string> Commands { get; } = [];

    /// <summary>A certificate for localhost of its own authority.</summary>
    public static X509Certificate2 Certificate { get; } = Certify();

    public ValueTask DisposeAsync() => _listener.DisposeAsync();

    private async Task Serve(Socket socket, CancellationToken stopping)
    {
        using (socket)
        {
            try
            {
                Stream stream = new NetworkStream(socket);
                stream = IsTls ? await Secure(stream) : stream;
                await Talk(stream, IsTls);
            }
            catch (Exception exception) when (exception is IOException or OperationCanceledException or System.Security.Authentication.AuthenticationException)
            {
                // the other side has gone
            }
        }
    }

    private async Task Talk(Stream stream, bool isSecure)
    {
        var (from, to) = ("", new List<string>());
        string? user = null, password = null;
        await Say("220 sink");
        while (await ReadLine() is { } line)
        {
            Commands.Enqueue(line);
            var verb = line.Split(' ', ':')[0].ToUpperInvariant();
            if (Replies.TryGetValue(verb, out var reply))
            {
                await Say(reply);
                continue;
            }

            switch (verb)
            {
                case "EHLO":
                    string[] lines = ["sink", .. Offers.Where(o => !isSecure || o != "STARTTLS")];
                    await Say(string.Join("\r\n", lines.Select((l, i) => $"250{(i == lines.Length - 1 ? ' ' : '-')}{l}")));
                    break;
                case "STARTTLS":
                    await Say("220 go on");
                    (stream, isSecure) = (await Secure(stream), true);
                    break;
                case "AUTH" when line.StartsWith("AUTH PLAIN ", StringComparison.Ordinal):
                    var parts = Unpacked(line["AUTH PLAIN ".Length..]).Split('\0');
                    (user, password) = (parts[1], parts[2]);
                    await Say("235 welcome");
                    break;
                case "AUTH":
                    await Say("334 VXNlcm5hbWU6");
                    user = Unpacked((await ReadLine())!);
                    await Say("334 UGFzc3dvcmQ6");
                    password = Unpacked((await ReadLine())!);
                    await Say("235 welcome");
                    break;
                case "MAIL":
                    from = line[(line.IndexOf('<', StringComparison.Ordinal) + 1)..^1];
                    await Say("250 ok");
                    break;
                case "RCPT":
                    to.Add(line[(line.IndexOf('<', StringComparison.Ordinal) + 1)..^1]);
                    await Say("250 ok");
                    break;
                case "DATA":
                    await Say("354 go on");
                    var text = new StringBuilder();
                    while (await ReadLine() is { } part && part != ".")
                    {
                        text.Append(part.StartsWith('.') ? part[1..] : part).Append("\r\n");
                    }

                    if (Replies.TryGetValue(".", out var end))
                    {
                        await Say(end);
                        break;
                    }

                    Mails.Enqueue(new ReceivedMail(from, to, text.ToString(), isSecure, user, password));
                    await Say("250 taken");
                    break;
                case "QUIT":
                    await Say("221 bye");
                    return;
                default:
                    await Say("500 what?");
                    break;
            }
        }

        Task Say(string text) => stream.WriteAsync(Encoding.UTF8.GetBytes($"{text}\r\n"), _listener.Stopping).AsTask();

        async Task<string?> ReadLine()
        {
            var line = new List<byte>();
            var one = new byte[1];
            while (await stream.ReadAsync(one, _listener.Stopping) == 1)
            {
                if (one[0] == '\n')
                {
                    return Encoding.UTF8.GetString([.. line]).TrimEnd('\r');
                }

                line.Add(one[0]);
            }

            return null;
        }
    }

    private async Task<Stream> Secure(Stream stream)
    {
        var tls = new SslStream(stream);
        await tls.AuthenticateAsServerAsync(new SslServerAuthenticationOptions { ServerCertificate = Certificate }, _listener.Stopping);
        return tls;
    }

    private static string Unpacked(string text) => Encoding.UTF8.GetString(Convert.FromBase64String(text));

    private static X509Certificate2 Certify()
    {
        using var key = RSA.Create(2048);
        var request = new CertificateRequest("CN=localhost", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        var names = new SubjectAlternativeNameBuilder();
        names.AddDnsName("localhost");
        request.CertificateExtensions.Add(names.Build());
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        using var made = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(30));
        return X509CertificateLoader.LoadPkcs12(made.Export(X509ContentType.Pfx), null);
    }
}
