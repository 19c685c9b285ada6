namespace Ledger.Campaigns;

/// <summary>A telephone number of any country.</summary>
public readonly record struct PhoneNumber
{
    /// <summary>Digits that E.164 allows, with the country's code.</summary>
    public const int MaxDigits = 15;

    /// <summary>Digits of the shortest numbers in use, with the country's code.</summary>
    public const int MinDigits = 7;

    /// <summary>What to say of a value that is none.</summary>
    public const string Rule = "is not a phone number: '+' and 7 to 15 digits of which the first is not 0, such as +4915112345678, or 7 and ten digits";

    // Country code 7 and an operator's code of three digits, then seven more.
    private const int DigitsOfSeven = 11;

    private readonly string? _e164;

    private PhoneNumber(string e164) => _e164 = e164;

    /// <summary>The number in international form, with <c>+</c> and without spaces.</summary>
    public string E164 => _e164 ?? "";

    /// <summary>The three digits after the country code 7, which are the operator's; null for other countries.</summary>
    public string? OperatorCode => E164.StartsWith("+7", StringComparison.Ordinal) ? E164[2..5] : null;

    /// <summary>
    /// Reads <c>+</c> with digits by E.164, or <c>7XXXXXXXXXX</c>, which is <c>+7XXXXXXXXXX</c>. Nothing may stand between or
    /// around the digits. Numbers of country code 7 have exactly ten more.
    /// </summary>
    public static bool TryParse(string text, out PhoneNumber phone)
    {
        phone = default;
        var hasPlus = text.StartsWith('+');
        var digits = text.AsSpan(hasPlus ? 1 : 0);
        if (digits.Length is < MinDigits or > MaxDigits || digits.ContainsAnyExceptInRange('0', '9') || digits[0] == '0'
            || (digits[0] == '7' ? digits.Length != DigitsOfSeven : !hasPlus))
        {
            return false;
        }

        phone = new PhoneNumber(hasPlus ? text : $"+{text}");
        return true;
    }

    /// <inheritdoc/>
    public override string ToString() => E164;
}
