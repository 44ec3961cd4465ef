import SnapCore
import XCTest

final class PictureSizeTests: XCTestCase {
    func testOneNumberIsASquare() {
        XCTAssertEqual(PictureSize("512"), PictureSize(height: 512, width: 512))
        XCTAssertEqual(PictureSize("384x512"), PictureSize(height: 384, width: 512))
        XCTAssertEqual(PictureSize(height: 384, width: 512).description, "384x512")
    }

    func testOtherTextsAreRefused() {
        for text in ["", "x", "0", "512x", "x512", "512x0", "-8", "5e2", "1x2x3", "99999999999999999999", "8 x 8"] {
            XCTAssertNil(PictureSize(text), text)
        }
    }
}
