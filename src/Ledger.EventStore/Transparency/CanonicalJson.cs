using System.Buffers;
using System.Buffers.Text;
using System.Runtime.InteropServices;
using System.Text.Json;

namespace Ledger.EventStore;

/// <summary>
/// Writes JSON as RFC 8785 (JCS) has it: no space, names in the order of their UTF-16 code units, one spelling of every string
/// and number. So what is hashed does not depend on how a database keeps or shows it. Numbers are never rounded: those with more
/// digits than a double holds, which JCS would round, keep them, in JCS's own layout.
/// </summary>
internal static class CanonicalJson
{
    private static readonly JsonReaderOptions s_options = new() { MaxDepth = int.MaxValue }; // PostgreSQL has a limit of its own

    /// <summary>Writes a JSON text. Keeps nothing on the call stack for its depth.</summary>
    /// <exception cref="JsonException">It is not well-formed, or has a name twice.</exception>
    public static void Write(ReadOnlySpan<byte> json, ByteBuffer output)
    {
        var reader = new Utf8JsonReader(json, s_options);
        var work = t_work ??= new Work();
        work.Begin();
        while (reader.Read())
        {
            switch (reader.TokenType)
            {
                case JsonTokenType.StartObject:
                    work.Separate(output);
                    work.Push(output, isObject: true);
                    break;
                case JsonTokenType.StartArray:
                    work.Separate(output);
                    work.Push(output, isObject: false);
                    break;
                case JsonTokenType.EndObject:
                    work.EndObject(output);
                    break;
                case JsonTokenType.EndArray:
                    work.Pop();
                    output.Write("]"u8);
                    break;
                case JsonTokenType.PropertyName:
                    work.BeginMember(ref reader, output);
                    break;
                case JsonTokenType.String:
                    work.Separate(output);
                    work.String(ref reader, output);
                    break;
                case JsonTokenType.Number:
                    work.Separate(output);
                    Number(reader.ValueSpan, output);
                    break;
                default:
                    work.Separate(output);
                    output.Write(reader.ValueSpan); // true, false, null
                    break;
            }
        }
    }

    [ThreadStatic]
    private static Work? t_work;

    /// <summary>
    /// A number by its exact digits, in the layout of ECMAScript's Number::toString: plain from 1e-6 up to below 1e21, else with
    /// an exponent.
    /// </summary>
    private static void Number(ReadOnlySpan<byte> text, ByteBuffer output)
    {
        if (text.Length <= 16 && text.IndexOfAnyExceptInRange((byte)'0', (byte)'9') < 0)
        {
            output.Write(text); // a small integer: already as it must be
            return;
        }

        var negative = text[0] == '-';
        if (negative)
        {
            text = text[1..];
        }

        var exponent = 0L;
        if (text.IndexOfAny((byte)'e', (byte)'E') is >= 0 and var e)
        {
            var part = text[(e + 1)..];
            if (part[0] == '+')
            {
                part = part[1..];
            }

            if (!Utf8Parser.TryParse(part, out exponent, out var used) || used != part.Length)
            {
                throw new JsonException("An exponent has too many digits.");
            }

            text = text[..e];
        }

        var digits = ArrayPool<byte>.Shared.Rent(text.Length);
        var count = 0;
        var point = text.IndexOf((byte)'.') is >= 0 and var p ? p : text.Length;
        foreach (var c in text)
        {
            if (c != '.')
            {
                digits[count++] = c;
            }
        }

        var all = digits.AsSpan(0, count);
        var leading = all.IndexOfAnyExcept((byte)'0');
        if (leading < 0)
        {
            output.Write("0"u8); // -0 as well
        }
        else
        {
            // The value is 0.d1d2d3… times ten to the power of n.
            var n = point - leading + exponent;
            all = all[leading..].TrimEnd((byte)'0');
            if (negative)
            {
                output.Write("-"u8);
            }

            Layout(all, n, output);
        }

        ArrayPool<byte>.Shared.Return(digits);
    }

    private static void Layout(ReadOnlySpan<byte> digits, long n, ByteBuffer output)
    {
        const int MaxPlain = 21;
        const int MinPlain = -6;
        if (n is > 0 and <= MaxPlain)
        {
            output.Write(digits[..(int)Math.Min(n, digits.Length)]);
            for (var i = digits.Length; i < n; i++)
            {
                output.Write("0"u8);
            }

            if (digits.Length > n)
            {
                output.Write("."u8);
                output.Write(digits[(int)n..]);
            }
        }
        else if (n is > MinPlain and <= 0)
        {
            output.Write("0."u8);
            for (var i = n; i < 0; i++)
            {
                output.Write("0"u8);
            }

            output.Write(digits);
        }
        else
        {
            output.Write(digits[..1]);
            if (digits.Length > 1)
            {
                output.Write("."u8);
                output.Write(digits[1..]);
            }

            output.Write(n > 0 ? "e+"u8 : "e"u8);
            Span<byte> exponent = stackalloc byte[20];
            Utf8Formatter.TryFormat(n - 1, exponent, out var written);
            output.Write(exponent[..written]);
        }
    }

    /// <summary>The containers that are open, and their members, in lists that are used again and again.</summary>
    private sealed class Work
    {
        private readonly List<Frame> _frames = [];
        private readonly List<Member> _members = [];
        private byte[] _names = new byte[1_024];
        private byte[] _copy = new byte[1_024];
        private int _namesLength;

        public void Begin()
        {
            _frames.Clear();
            _members.Clear();
            _namesLength = 0;
        }

        /// <summary>Writes the comma before a value of an array.</summary>
        public void Separate(ByteBuffer output)
        {
            if (_frames.Count > 0 && _frames[^1] is { IsObject: false } frame)
            {
                if (frame.HasValues)
                {
                    output.Write(","u8);
                }

                _frames[^1] = frame with { HasValues = true };
            }
        }

        public void Push(ByteBuffer output, bool isObject)
        {
            _frames.Add(new Frame(isObject, _members.Count, _namesLength, output.Length));
            if (!isObject)
            {
                output.Write("["u8);
            }
        }

        public void Pop() => _frames.RemoveAt(_frames.Count - 1);

        /// <summary>Writes a member's name, and keeps it as it sorts. A member begins with a comma wherever it will stand.</summary>
        public void BeginMember(ref Utf8JsonReader reader, ByteBuffer output)
        {
            var start = output.Length;
            output.Write(","u8);
            var name = String(ref reader, output);
            output.Write(":"u8);
            if (_names.Length - _namesLength < name.Length)
            {
                Array.Resize(ref _names, Math.Max(2 * _names.Length, _namesLength + name.Length));
            }

            name.CopyTo(_names.AsSpan(_namesLength));
            _members.Add(new Member(start, _namesLength, name.Length));
            _namesLength += name.Length;
        }

        /// <summary>Puts the members in order. They come as jsonb keeps them, the shorter names first, so often they are not.</summary>
        public void EndObject(ByteBuffer output)
        {
            var frame = _frames[^1];
            Pop();
            var members = _members.Count - frame.FirstMember;
            var inOrder = true;
            for (var i = frame.FirstMember + 1; i < _members.Count && inOrder; i++)
            {
                inOrder = Compare(_members[i - 1], _members[i]) < 0;
            }

            if (!inOrder)
            {
                Sort(frame, output);
            }

            if (members > 0)
            {
                output.Written[frame.Start] = (byte)'{'; // in the place of the first comma
            }
            else
            {
                output.Write("{"u8);
            }

            output.Write("}"u8);
            _members.RemoveRange(frame.FirstMember, members);
            _namesLength = frame.NamesStart;
        }

        /// <summary>Writes a string in its one spelling; gives what it says.</summary>
        public ReadOnlySpan<byte> String(ref Utf8JsonReader reader, ByteBuffer output)
        {
            var text = reader.ValueSpan;
            output.Write("\""u8);
            if (!reader.ValueIsEscaped)
            {
                output.Write(text); // JSON can't hold what must be escaped but escaped
                output.Write("\""u8);
                return text;
            }

            Reserve(text.Length);
            var plain = _copy.AsSpan(0, reader.CopyString(_copy));
            foreach (var c in plain)
            {
                switch (c)
                {
                    case (byte)'"':
                        output.Write("\\\""u8);
                        break;
                    case (byte)'\\':
                        output.Write("\\\\"u8);
                        break;
                    case (byte)'\b':
                        output.Write("\\b"u8);
                        break;
                    case (byte)'\t':
                        output.Write("\\t"u8);
                        break;
                    case (byte)'\n':
                        output.Write("\\n"u8);
                        break;
                    case (byte)'\f':
                        output.Write("\\f"u8);
                        break;
                    case (byte)'\r':
                        output.Write("\\r"u8);
                        break;
                    case < 0x20:
                        output.Write("\\u00"u8);
                        output.Write([Hex(c >> 4), Hex(c & 0xF)]);
                        break;
                    default:
                        output.Write(c);
                        break;
                }
            }

            output.Write("\""u8);
            return plain;

            static byte Hex(int digit) => (byte)(digit < 10 ? '0' + digit : 'a' + digit - 10);
        }

        private void Sort(Frame frame, ByteBuffer output)
        {
            var end = output.Length;
            var members = CollectionsMarshal.AsSpan(_members)[frame.FirstMember..];
            for (var i = 0; i < members.Length; i++)
            {
                members[i] = members[i] with { End = i + 1 < members.Length ? members[i + 1].Start : end };
            }

            members.Sort(Compare);
            for (var i = 1; i < members.Length; i++)
            {
                if (Compare(members[i - 1], members[i]) == 0)
                {
                    throw new JsonException("A name is given twice.");
                }
            }

            var written = output.Written[frame.Start..];
            Reserve(written.Length);
            written.CopyTo(_copy);
            var place = 0;
            foreach (var member in members)
            {
                var piece = _copy.AsSpan(member.Start - frame.Start, member.End - member.Start);
                piece.CopyTo(written[place..]);
                place += piece.Length;
            }
        }

        /// <summary>
        /// By UTF-16 code units, without making them: only characters past U+FFFF, which UTF-16 writes as surrogates, sort
        /// otherwise than their UTF-8, namely before U+E000 to U+FFFF.
        /// </summary>
        private int Compare(Member one, Member other)
        {
            var a = _names.AsSpan(one.Name, one.NameLength);
            var b = _names.AsSpan(other.Name, other.NameLength);
            var same = a.CommonPrefixLength(b);
            if (same == a.Length || same == b.Length)
            {
                return a.Length.CompareTo(b.Length);
            }

            return Rank(a[same]).CompareTo(Rank(b[same]));

            static int Rank(byte lead) => lead is 0xEE or 0xEF ? lead + 0x100 : lead;
        }

        private void Reserve(int length)
        {
            if (_copy.Length < length)
            {
                _copy = new byte[Math.Max(2 * _copy.Length, length)];
            }
        }
    }

    private readonly record struct Frame(bool IsObject, int FirstMember, int NamesStart, int Start)
    {
        public bool HasValues { get; init; }
    }

    private readonly record struct Member(int Start, int Name, int NameLength)
    {
        public int End { get; init; }
    }
}
